import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

from rkdsearch.results.columns import cells_of
from rkdsearch.teacher import fingerprint
from rkdsearch.training import rows
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.trainer import Trainer
from tests.training.runs import described, train


def measured(
    run: Trainer, epochs: Sequence[EpochResult], facts: Mapping[str, object] = MappingProxyType({})
) -> dict[str, object]:
    """The measured cells of a run's row after these epochs, with these facts instead of its own."""
    facts, found = {**rows.facts_of(run), **facts}, rows.metrics(epochs)
    return {
        **({} if found is None else cells_of(found, "metric.")),
        **cells_of(rows.reached_fidelity(run.config, epochs), "fidelity."),
        **facts,
        **cells_of(rows.single_run_record(run.config, epochs, facts), "run."),
    }


def test_a_row_holds_the_best_epoch_and_the_last_one_beside_it(teachers: Path) -> None:
    run = train(described(teachers, training={"epochs": 3, "seed": 5}))
    row = measured(run, run.history)
    best, last = run.history[-1].best, run.history[-1]
    assert best is not None
    assert row["metric.clean_accuracy"] == best.clean_accuracy
    assert row["metric.robust_accuracy"] == best.robust_accuracy
    assert row["metric.best_epoch"] == best.epoch
    assert best.by_class is not None
    assert row["metric.by_class.robust_accuracy"] == best.by_class.robust
    assert min(best.by_class.robust) == best.worst_class_accuracy  # type: ignore[type-var]
    assert EpochResult.from_dict(json.loads(json.dumps(asdict(last)))) == last
    assert row["metric.last_robust_accuracy"] == last.robust_accuracy
    assert row["metric.robust_overfitting_gap"] == last.robust_overfitting_gap
    assert (
        row["fidelity.epochs"],
        row["fidelity.of_epochs"],
        row["run.seed"],
        row["run.processes"],
    ) == (3, 3, 5, 1)


def test_each_epoch_is_paid_for_by_the_processes_that_trained_it(teachers: Path) -> None:
    run = train(described(teachers))
    one, two = (replace(e, seconds=10.0, processes=n) for n, e in enumerate(run.history, start=1))
    row = measured(run, [one, two], {"run.processes": 2, "run.devices": 2.0})
    assert (row["run.wall_seconds"], row["run.device_seconds"]) == (20.0, 30.0)
    assert [rows.epoch(e).processes for e in (one, two)] == [1, 2]
    # Of an epoch of which nobody wrote it down, the run's own number is believed.
    row = measured(
        run, [one, replace(one, processes=None)], {"run.processes": 4, "run.devices": 4.0}
    )
    assert row["run.device_seconds"] == 10.0 + 40.0


def test_a_run_that_has_not_been_judged_has_a_row_without_accuracies(teachers: Path) -> None:
    run = Trainer(described(teachers))
    row = measured(run, [])
    assert (row["fidelity.epochs"], row["run.wall_seconds"]) == (0, 0)
    assert not [name for name in row if name.startswith("metric.")]


def test_a_teachers_hash_is_recorded_whether_or_not_the_config_asks_for_it(teachers: Path) -> None:
    facts = rows.facts_of(Trainer(described(teachers)))
    assert facts["run.teacher_sha256"] == fingerprint(teachers / "robust.safetensors")
    assert facts["run.natural_teacher_sha256"] is None  # rslad asks no natural teacher
    assert rows.facts_of(Trainer(described(teachers, "natural")))["run.teacher_sha256"] is None


def test_an_epochs_row_has_its_terms_and_the_teachers_reliability(teachers: Path) -> None:
    epoch = train(described(teachers)).history[0]
    row = cells_of(rows.epoch(epoch))
    assert row["terms"] == epoch.terms
    shares = [
        row[f"teacher.{name}"]
        for name in ("right_on_adversarial", "right_on_clean_only", "wrong_on_both")
    ]
    assert all(isinstance(share, float) for share in shares)
    assert 0 <= sum(s for s in shares if isinstance(s, float)) <= 1 + 1e-12
