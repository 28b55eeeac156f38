import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from rkdsearch import config as run
from rkdsearch import models
from rkdsearch.errors import StudyError, TeacherError
from rkdsearch.evaluation.targets import checkpoint_target, study_targets
from rkdsearch.results.columns import Column
from rkdsearch.results.store import Store
from rkdsearch.teacher import fingerprint
from tests.evaluation.files import CONFIG, VALUES, run_alone, write_network, write_trials
from tests.search import files
from tests.tasks import DIGITS

TAUGHT = run.build(
    VALUES
    | {
        "teachers.robust": {
            "network": {"name": "mlp", "width": 16},
            "path": "t",
            "sha256": "ab" * 32,
        }
    }
)


def test_what_cannot_be_evaluated_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no trials; `rkdsearch tune` makes them"):
        study_targets(tmp_path)
    study = tmp_path / "study"
    files.run(study, files.load_space(tmp_path))
    with pytest.raises(
        StudyError,
        match=re.escape(f"there is no trial 't9'; `rkdsearch status {study}` lists the trials"),
    ):
        study_targets(study, trial="t9")
    found = study_targets(study, chosen="front")
    assert not found.networks
    assert "t00000/best.safetensors: is missing, so trial t00000 cannot be" in found.problems[0]


@pytest.mark.parametrize("status", ["running", "paused", "stopped", "failed"])
def test_what_has_not_finished_is_not_evaluated(tmp_path: Path, status: str) -> None:
    run_alone(tmp_path, status=status)
    with pytest.raises(
        StudyError,
        match=(
            f"trial run is {status}, and only finished trials are evaluated, since test images must"
            " not influence"
        ),
    ):
        study_targets(tmp_path, trial="run")
    with pytest.raises(
        StudyError,
        match=re.escape(
            f"no trial has finished (1 {status}); `rkdsearch train` continues it, with the file"
        ),
    ):
        study_targets(tmp_path)
    (tmp_path / "study.json").write_text('{"name": "searched"}')
    with pytest.raises(StudyError, match="continue the study with `tune --resume`, and more"):
        study_targets(tmp_path)


@pytest.mark.parametrize("chosen", [{"trial": "run"}, {"chosen": "front"}, {}], ids=str)
def test_a_run_without_a_search_is_evaluated_in_its_own_folder(
    tmp_path: Path, chosen: dict[str, Any]
) -> None:
    run_alone(tmp_path)
    (found,) = study_targets(tmp_path, **chosen).networks
    weights = tmp_path / "best.safetensors"
    assert (found.trial_id, found.weights, found.config) == ("run", weights, CONFIG)
    assert (found.sha256, found.task) == (fingerprint(weights), DIGITS)


def trial(trial_id: str, ordinal: int, clean: float, robust: float, **more: Any) -> dict[str, Any]:
    return {
        "trial_id": trial_id,
        "ordinal": ordinal,
        "metric.clean_accuracy": clean,
        "metric.robust_accuracy": robust,
        **more,
    }


def replicated(tmp_path: Path) -> Path:
    """Two searched settings and a baseline, the better setting and the baseline replicated."""
    again = {"origin": "replicate"}
    write_trials(
        tmp_path,
        [
            trial("base", 0, 0.5, 0.3, origin="baseline"),
            trial("good", 1, 0.9, 0.5),
            trial("poor", 2, 0.4, 0.2),
            trial("base-r1", 0, 0.5, 0.3, **again),
            trial("good-r1", 1, 0.8, 0.5, **again),
            trial("poor-r1", 2, 0.4, 0.2, **again),
        ],
    )
    return tmp_path


def test_the_front_comes_with_its_replicates_and_the_baselines_with_theirs(tmp_path: Path) -> None:
    found = study_targets(replicated(tmp_path), chosen="front")
    assert [t.trial_id for t in found.networks] == ["base", "base-r1", "good", "good-r1"]
    assert [t.trial_id for t in found.sources] == ["good"]
    alone = study_targets(tmp_path, chosen="front", replicates=False)
    assert [t.trial_id for t in alone.networks] == ["base", "good"]
    named = study_targets(tmp_path, trial="good-r1", replicates=False)
    assert [t.trial_id for t in named.networks] == ["good-r1"]


def test_a_front_and_its_baselines_have_the_longest_full_run_and_one_of_before_has_its_name(
    tmp_path: Path,
) -> None:
    short, long = {"fidelity.of_epochs": 4}, {"fidelity.of_epochs": 8}
    write_trials(
        tmp_path,
        [
            trial("base", 0, 0.9, 0.9, origin="baseline", **short),
            trial("good", 1, 0.9, 0.8, **short),
            trial("base2", 2, 0.5, 0.3, origin="baseline", **long),
            trial("good2", 3, 0.6, 0.4, **long),
        ],
    )
    for chosen in ("front", "best of methods"):
        found = study_targets(tmp_path, chosen=chosen)  # type: ignore[arg-type]
        assert [t.trial_id for t in found.networks] == ["base2", "good2"]
    assert len(study_targets(tmp_path).networks) == 4
    assert [t.trial_id for t in study_targets(tmp_path, trial="good").networks] == ["good"]


def test_a_member_whose_file_is_gone_or_cut_is_a_sentence_and_the_rest_is_evaluated(
    tmp_path: Path,
) -> None:
    study = replicated(tmp_path)
    gone, cut = (study / "checkpoints" / name / "best.safetensors" for name in ("good", "base-r1"))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:300])
    found = study_targets(study, chosen="front")
    assert [t.trial_id for t in found.networks] == ["base", "good-r1"]
    assert [sentence.split(":")[0] for sentence in found.problems] == [
        "trial base-r1 cannot be evaluated",
        str(gone),
    ]
    assert "is truncated or damaged" in found.problems[0]


def test_a_row_that_cannot_be_read_is_a_sentence_and_the_rest_is_evaluated(tmp_path: Path) -> None:
    study = replicated(tmp_path)
    row = study / "trials" / "good.parquet"
    row.write_bytes(row.read_bytes()[:100])
    (study / "study.json").write_text("{")
    said = "cannot be read, so it is left out; put a whole copy in its place"
    found = study_targets(study)
    assert "good" not in [t.trial_id for t in found.networks]
    assert len(found.networks) > 2
    assert found.problems == [f"{row}: {said}"]
    assert found.notices == [f"{study / 'study.json'}: {said}"]
    assert not study_targets(study, trial="base").problems
    with pytest.raises(StudyError, match=r"good\.parquet: cannot be read; put a whole copy in its"):
        study_targets(study, trial="good")


def test_the_best_of_methods_is_the_best_searched_setting_of_each_and_the_baselines(
    tmp_path: Path,
) -> None:
    rows = [
        trial("base", 0, 0.9, 0.6, origin="baseline", **{"config.method.name": "trades"}),
        trial("t1", 1, 0.8, 0.5, **{"config.method.name": "trades"}),
        trial("t2", 2, 0.7, 0.55, **{"config.method.name": "trades"}),
        trial("n1", 3, 0.95, 0.0, **{"config.method.name": "natural"}),
        trial("n2", 4, 0.99, 0.0, status="stopped", **{"config.method.name": "natural"}),
        trial("t1-r1", 1, 0.6, 0.3, origin="replicate", **{"config.method.name": "trades"}),
    ]
    method = Column("config.method.name", "string", "", "method")
    for row in rows:
        known = {"origin": "search", "status": "finished"}
        Store(tmp_path, (method,)).write_trial(known | row)
        write_network(tmp_path / "checkpoints" / row["trial_id"] / "best.safetensors")
    found = study_targets(tmp_path, chosen="best of methods")
    assert [t.trial_id for t in found.networks] == ["base", "t2", "n1"], (
        "the replicate of t1 shows that t2 is better"
    )


def test_a_bare_checkpoint_needs_its_run_only_where_the_file_does_not_say_it(
    tmp_path: Path,
) -> None:
    write_network(tmp_path / "my student.safetensors")
    found = checkpoint_target(tmp_path / "my student.safetensors")
    assert (found.trial_id, found.config, found.task) == ("my-student", CONFIG, DIGITS)
    bare = tmp_path / "bare.safetensors"
    save_file(models.build(CONFIG.student, DIGITS).state_dict(), bare)
    assert checkpoint_target(bare, CONFIG).classes == tuple("0123456789")
    with pytest.raises(
        StudyError, match="does not say of which run it is; name the run's file with"
    ):
        checkpoint_target(bare)
    bare.write_bytes(bare.read_bytes()[:200])
    with pytest.raises(TeacherError, match="is truncated or damaged"):
        checkpoint_target(bare)


def test_a_teacher_moves_with_its_study_and_a_missing_or_a_changed_one_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    study, elsewhere = tmp_path / "study", tmp_path / "here" / "teachers"
    run_alone(study, TAUGHT)
    for folder in (elsewhere, study / "teachers"):
        folder.mkdir()
        (folder / "best.safetensors").write_text(folder.parent.name)
    facts = {
        "path": "teachers/best.safetensors",
        "sha256": fingerprint(study / "teachers" / "best.safetensors"),
    }
    (study / "study.json").write_text(json.dumps({"teachers": {"robust": facts}}))

    def found() -> tuple[list[Path], list[str]]:
        targets = study_targets(study, trial="run")
        assert not targets.problems
        return [target.weights for target in targets.networks], list(targets.notices)

    student = study / "best.safetensors"
    assert found() == ([student, study / "teachers" / "best.safetensors"], [])
    (study / "teachers" / "best.safetensors").unlink()
    (said,) = found()[1]
    assert found()[0] == [student]
    assert said.startswith(
        "robust teacher: teachers/best.safetensors is not the file that taught (its sha256 was"
    )
    (elsewhere / "best.safetensors").write_text("study")  # the very file, where the search found it
    assert found() == ([student, Path("teachers/best.safetensors")], [])
    (elsewhere / "best.safetensors").unlink()
    assert found() == (
        [student],
        ["robust teacher: teachers/best.safetensors is not there, so it is not evaluated"],
    )


@pytest.mark.parametrize(
    "teachers", [5, [], {"robust": 5}, {"robust": {"path": 5}}, {"robust": {"path": "run.yaml"}}]
)
def test_a_study_that_describes_its_teachers_by_nonsense_is_evaluated_without_them(
    tmp_path: Path, teachers: object
) -> None:
    run_alone(tmp_path, TAUGHT)
    (tmp_path / "run.yaml").write_text("")
    (tmp_path / "study.json").write_text(json.dumps({"teachers": teachers}))
    targets = study_targets(tmp_path, trial="run")
    assert [target.trial_id for target in targets.networks] == ["run"]
    assert not targets.problems
