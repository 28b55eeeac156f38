"""An attack from x that would never move is refused before training, whoever wrote its method."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rkdsearch.errors import ConfigError
from rkdsearch.training.trainer import Trainer
from tests.training.runs import TINY, described

METHOD = "tests.training.consistent"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_users_method_that_is_flat_at_x_is_refused_before_the_first_epoch(
    teachers: Path, precision: str
) -> None:
    with pytest.raises(ConfigError, match=f"'none' here.*'{METHOD}'.*no image would ever move"):
        Trainer(
            described(teachers, METHOD, attack={"start": "none"}, training={"precision": precision})
        )


@pytest.mark.parametrize(
    "attack",
    [{"start": "gaussian"}, {"start": "none", "steps": 0}, {"start": "none", "objective": "label"}],
)
def test_the_same_method_trains_where_its_attack_can_move(
    teachers: Path, attack: dict[str, Any]
) -> None:
    assert Trainer(described(teachers, METHOD, attack=attack)).history == []


def test_the_look_at_the_gradient_leaves_the_run_as_it_was(teachers: Path) -> None:
    # Tiny has BatchNorm, and ARD attacks in train mode, which moves its statistics.
    config = described(teachers, "ard", **TINY, attack={"start": "none", "batchnorm": "train"})
    torch.manual_seed(7)
    trainer = Trainer(config)
    assert trainer.objective.memory == {}
    assert float(trainer.student.get_buffer("bn1.running_mean").abs().max()) == 0.0
    assert int(trainer.student.get_buffer("bn1.num_batches_tracked")) == 0
    assert trainer.objective.attack.steps == config.attack.steps
