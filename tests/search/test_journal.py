from pathlib import Path

import optuna
import pytest

from rkdsearch.search.journal import Journal
from rkdsearch.search.study import Study
from tests.search.files import SMALL, load_space, run

pytestmark = pytest.mark.usefixtures("unhurried")


def states(folder: Path) -> dict[str, str]:
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal"))
    )
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert study.metric_names == ["clean_accuracy", "robust_accuracy"]
    found = [(t.user_attrs["trial_id"], t.state.name) for t in study.trials]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_journal_shows_every_ended_trial_once_as_what_it_is(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    study = run(tmp_path / "s", space, journal=Journal(tmp_path / "s", space))
    names = {"finished": "COMPLETE", "stopped": "PRUNED"}
    expected = {t.trial_id: names[t.status] for t in study.trials.values()}
    assert states(tmp_path / "s") == expected
    for content in (None, b'{"op_code": 0, "wor'):
        file = tmp_path / "s" / "optuna.journal"
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        Journal(tmp_path / "s", space).sync(study.trials.values())
        assert states(tmp_path / "s") == expected


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_resumed_search_keeps_its_stopped_trials(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    run(tmp_path, space, journal=Journal(tmp_path, space))
    before = states(tmp_path)
    assert "PRUNED" in before.values()
    for trials in (8, 8, 14):
        book, study = Journal(tmp_path, space), Study(tmp_path, space, trials, {})
        study.reconcile()
        book.sync(study.trials.values())
        study = run(tmp_path, space, trials=trials, journal=book)
        assert states(tmp_path) == {
            t.trial_id: {"finished": "COMPLETE", "stopped": "PRUNED"}[t.status]
            for t in study.trials.values()
        }
    assert len(states(tmp_path)) == 14


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_journal_that_is_no_longer_true_is_written_anew(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    study = run(tmp_path, space, journal=Journal(tmp_path, space))
    stopped = next(t for t in study.trials.values() if t.status == "stopped")
    stopped.status = "finished"
    Journal(tmp_path, space).sync(study.trials.values())
    assert states(tmp_path)[stopped.trial_id] == "COMPLETE"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_cost_is_minimised_in_the_journal_and_written_as_it_was_counted(tmp_path: Path) -> None:
    space = load_space(
        tmp_path,
        search={"student.width": {"int": [2, 16]}},
        fixed={"data.name": "digits", "student.name": "small_cnn", "method.name": "natural"},
        first=[],
        objectives=["robust_accuracy", "multiply_adds"],
        scheduler={"name": "none"},
    )
    study = run(tmp_path, space, trials=2, journal=Journal(tmp_path, space))
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "optuna.journal"))
    )
    shown = optuna.load_study(study_name=None, storage=storage)
    assert [direction.name for direction in shown.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [t.values[1] for t in shown.trials] == [
        float(t.costs["multiply_adds"]) for t in study.trials.values()
    ]
    assert min(t.values[1] for t in shown.trials) > 1_000


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_search_over_steps_in_ratios_tries_the_ratios_themselves(
    tmp_path: Path, sampler: str
) -> None:
    eps = {"float": ["8/255", "16/255"], "step": "4/255"}
    space = load_space(
        tmp_path,
        search={**SMALL["search"], "attack.eps": eps},
        first=[{"label": "A", "method.name": "trades", "attack.eps": "8/255"}],
        sampler={"name": sampler, "startup": 2},
    )
    study = run(tmp_path / "s", space, journal=Journal(tmp_path / "s", space))
    tried = {trial.config.attack.eps for trial in study.trials.values()}
    assert {8 / 255} < tried <= {8 / 255, 12 / 255, 16 / 255}
    assert len(states(tmp_path / "s")) == len(study.trials)  # Optuna takes its own decimals alone
