from typing import Any

import pytest

from rkdsearch.config import ScheduleConfig
from rkdsearch.training.schedules import lr_factor


def rates(epochs: int, **schedule: Any) -> list[float]:
    """The factor at the beginning of every epoch."""
    return [
        lr_factor(ScheduleConfig(**schedule), epoch=epoch, within=0.0, epochs=epochs)
        for epoch in range(epochs)
    ]


# the second is lost in the scripts of ARD and IAD
def test_every_milestone_multiplies_the_rate() -> None:
    assert rates(5, milestones=(0.4, 0.8), factor=0.1) == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("epochs", "epoch"), [(300, 215), (300, 260), (300, 285), (200, 100), (110, 100), (7, 3)]
)
def test_a_milestone_begins_with_its_own_epoch_whatever_fraction_it_is(
    epochs: int, epoch: int
) -> None:
    found = rates(epochs, milestones=(epoch / epochs,), factor=0.5)
    assert found == [1.0] * epoch + [0.5] * (epochs - epoch)


def test_215_260_285_of_300_are_three_drops() -> None:
    found = rates(300, milestones=(215 / 300, 260 / 300, 285 / 300), factor=0.1)
    assert [found[e] for e in (214, 215, 259, 260, 284, 285, 299)] == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


@pytest.mark.parametrize("epochs", [6, 10])
def test_a_short_run_takes_its_late_milestones_too(epochs: int) -> None:
    assert rates(epochs, milestones=(0.5, 0.97), factor=0.1) == pytest.approx(
        [1] * (epochs // 2) + [0.1] * (epochs // 2 - 1) + [0.01]
    )


def test_a_milestone_at_the_end_is_none_and_a_single_epoch_begins_at_the_full_rate() -> None:
    assert rates(4, milestones=(1.0,)) == [1, 1, 1, 1]
    assert rates(1, milestones=(0.9,)) == [1]
    assert rates(1, milestones=(0.5, 0.75)) == [1]


def test_multistep_once_never_takes_the_second_milestone() -> None:
    assert rates(5, name="multistep_once", milestones=(0.4, 0.8), factor=0.1) == pytest.approx(
        [1, 1, 0.1, 0.1, 0.1]
    )


def test_a_cosine_falls_from_one_through_a_half_to_nothing() -> None:
    assert rates(4, name="cosine") == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert lr_factor(ScheduleConfig(name="cosine"), epoch=3, within=1.0, epochs=4) == pytest.approx(
        0
    )


def test_warm_up_climbs_within_an_epoch_and_the_cosine_begins_where_it_ends() -> None:
    schedule = ScheduleConfig(name="cosine", warm_up=0.5)
    assert [
        lr_factor(schedule, epoch=0, within=w, epochs=2) for w in (0, 0.25, 0.5, 0.75)
    ] == pytest.approx([0, 0.25, 0.5, 0.75])
    assert [lr_factor(schedule, epoch=1, within=w, epochs=2) for w in (0, 0.5)] == pytest.approx(
        [1, 0.5]
    )


def test_onecycle_climbs_for_three_tenths_of_the_run_unless_told_otherwise() -> None:
    assert rates(10, name="onecycle") == pytest.approx(
        [0, 1 / 3, 2 / 3, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7]
    )
    assert rates(4, name="onecycle", warm_up=0.5) == pytest.approx([0, 0.5, 1, 0.5])


def test_a_climb_counts_the_step_that_is_being_taken_and_never_goes_beyond_the_full_rate() -> None:
    def climb(steps: int, **schedule: Any) -> list[float]:
        return [
            lr_factor(
                ScheduleConfig(**schedule), epoch=0, within=s / steps, step=1 / steps, epochs=1
            )
            for s in range(steps)
        ]

    assert climb(4, name="onecycle", warm_up=0.5) == pytest.approx([0.5, 1, 1, 0.5])
    assert climb(5, name="constant", warm_up=0.5) == pytest.approx([0.4, 0.8, 1, 1, 1])
    assert climb(1, name="onecycle") == climb(1, name="cosine", warm_up=0.1) == [1]


def test_a_constant_rate_is_constant_after_its_warm_up() -> None:
    assert rates(4, name="constant", warm_up=0.25) == pytest.approx([0, 1, 1, 1])
