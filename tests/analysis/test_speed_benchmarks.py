"""The speed benchmarks of trials and attacks compute the same on both sides."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "analysis" / "benchmarks"


@pytest.fixture(scope="module")
def trial() -> Iterator[ModuleType]:
    """analysis/benchmarks/trial.py, which is a script and no package."""
    sys.path.insert(0, str(BENCHMARKS))
    import trial

    yield trial
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def attack() -> Iterator[ModuleType]:
    """analysis/benchmarks/attack.py, which is a script and no package."""
    sys.path.insert(0, str(BENCHMARKS))
    import attack

    yield attack
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("student", ["small_cnn", "mlp"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp64", 1e-9)])
def test_a_trials_first_loss_is_the_scripts(
    trial: ModuleType, tmp_path: Path, student: str, precision: str, tolerance: float
) -> None:
    theirs, ours = trial.first_losses(tmp_path, trial.STUDENTS[student][0], precision)
    assert theirs > 1e-3
    assert abs(theirs - ours) < tolerance


def test_both_sides_of_a_trial_make_ten_steps_an_epoch_and_learn_alike(
    trial: ModuleType, tmp_path: Path
) -> None:
    trainer = trial.Trainer(trial.described(tmp_path, {"name": "mlp", "width": 16}))
    script, ours = trial.script_epochs(trainer, trial.CLIMBS["images"]), trainer.epochs()
    losses = [(next(script), next(ours)) for _ in range(3)]
    assert losses[-1][0] < losses[0][0]
    assert losses[-1][1].loss < losses[0][1].loss
    assert losses[-1][1].loss == pytest.approx(losses[-1][0], rel=0.2)
    assert losses[0][1].clean_accuracy is None  # a validation would be counted against us


def test_what_the_scripts_attack_asks_for_changes_their_speed_and_not_their_numbers(
    trial: ModuleType, tmp_path: Path
) -> None:
    trainer = trial.Trainer(trial.described(tmp_path, {"name": "mlp", "width": 16}, "fp64"))
    assert set(trial.CLIMBS) == {"images", "backward"}
    batch = next(iter(trainer._batches.epoch(0)))
    losses = []
    for climb in trial.CLIMBS.values():
        work = trial.script(trainer, climb)
        losses += [
            float(
                trial.published.rslad(
                    work, batch.x.double(), batch.y, trial.torch.Generator().manual_seed(2)
                )
            )
            for _ in range(2)
        ]
    assert losses[:2] == pytest.approx(losses[2:], abs=1e-12)
    assert losses[0] != losses[1]


def test_a_steps_time_is_divided_without_rest(trial: ModuleType, tmp_path: Path) -> None:
    trainer = trial.Trainer(trial.described(tmp_path, {"name": "mlp", "width": 16}))
    running = trainer.epochs()
    next(running)  # the first epoch also pays for what torch loads once
    parts = trial.where_time_goes(lambda: next(running), 10)
    assert set(parts) == {
        "attack",
        "outer forward",
        "outer backward",
        "optimizer",
        "data",
        "the loop",
    }
    assert all(microseconds > 0 for microseconds in parts.values())
    assert max(parts, key=lambda part: parts[part]) == "attack"


def test_every_inner_problem_of_an_attack_is_measured(
    attack: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    attack.compare("mlp", repeats=1)
    printed = capsys.readouterr().out
    assert all(
        name in printed
        for name in (
            "label",
            "teacher_clean",
            "teacher_adversarial",
            "student_clean",
            "live network",
        )
    )
