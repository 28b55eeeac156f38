from dataclasses import replace
from pathlib import Path

import pytest

from rkdsearch.accuracy import ByClass
from rkdsearch.training.epoch import Best
from tests.search.files import load_space, run

pytestmark = pytest.mark.usefixtures("unhurried")

CONSTANT = Best(1, 0.5, 0.5, 0.0)
GUESSING = Best(1, 0.12, 0.02, 0.0, ByClass((0.12,) * 10, (0.02,) * 10))


@pytest.mark.parametrize(
    ("best", "images", "merits"),
    [
        (CONSTANT, 2000, (-0.5, -0.5)),
        (GUESSING, 100, (-0.88, -0.98)),  # 0.12 of 100 may be a tenth
        (GUESSING, 2000, (0.12, 0.02)),
    ],
)
def test_at_a_rung_a_student_that_never_learned_ranks_below_every_other(
    tmp_path: Path, best: Best, images: int, merits: tuple[float, float]
) -> None:
    study = run(tmp_path, load_space(tmp_path), trials=1)
    trial = study.trials["t00000"]
    first = trial.epochs_by_segment[0][0]
    trial.epochs_by_segment[0][0] = replace(first, best=best, images=images)
    assert trial.merits_at(1, study.space.objectives) == pytest.approx(merits)
