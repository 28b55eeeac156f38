"""Device, precision and processes of a run: its config's, whatever launched it."""

from pathlib import Path

import pytest
import torch

from rkdsearch.errors import ConfigError
from rkdsearch.training import accelerator
from rkdsearch.training.trainer import Trainer
from tests.training.runs import assert_equal, described, state, train


def test_fp32_is_ieees_and_tf32_is_for_gpus_that_are_asked(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # as torch has it by itself
    Trainer(described(teachers))
    assert not torch.backends.cudnn.allow_tf32
    with pytest.raises(
        ConfigError, match=r"training\.precision must be fp32, bf16 or fp64 on a CPU, got 'tf32'"
    ):
        Trainer(described(teachers, training={"precision": "tf32"}))


def test_a_launchers_variables_do_not_change_the_numbers(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = described(teachers)
    plain = train(config)
    accelerator.AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    try:
        launched = train(config)
    finally:
        accelerator.AcceleratorState._reset_state(reset_partial_state=True)
    assert launched._forward is launched.objective
    assert_equal(state(plain), state(launched))


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_launcher_that_would_share_out_the_student_is_refused(
    teachers: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(
        ConfigError,
        match=(
            rf"{variable} must not be set, got 'true': each process holds the whole student here;"
            r" choose"
        ),
    ):
        Trainer(described(teachers))


def test_a_run_follows_its_own_device_and_not_the_one_before(teachers: Path) -> None:
    Trainer(described(teachers, training={"device": "auto"}))
    assert accelerator.AcceleratorState._shared_state["_cpu"] is False
    Trainer(described(teachers, training={"device": "cpu"}))
    assert accelerator.AcceleratorState._shared_state["_cpu"] is True
