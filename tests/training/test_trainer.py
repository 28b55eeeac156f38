import math
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from rkdsearch import models
from rkdsearch.accuracy import ByClass, ImageResults
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import CheckpointError, ConfigError, NonFiniteLossError, OutOfMemoryError
from rkdsearch.training import checkpoint, setup, trainer
from rkdsearch.training.epoch import Best, EpochResult
from rkdsearch.training.trainer import Trainer
from tests.tasks import DIGITS
from tests.training.runs import FLOAT64, TINY, assert_equal, described, state, train


def judged(monkeypatch: pytest.MonkeyPatch, *accuracies: tuple[float, float]) -> None:
    """Let the validations of a run find these (clean, robust) accuracies, of ten images."""
    left = iter(accuracies)

    def validate(_: Trainer, _fidelity: Fidelity) -> tuple[ImageResults, None]:
        clean, robust = next(left)
        ten = torch.arange(10)
        return (
            ImageResults(torch.zeros(10, dtype=torch.int64), ten < clean * 10, ten < robust * 10),
            None,
        )

    monkeypatch.setattr(Trainer, "validate", validate)


def test_the_best_epoch_is_best_in_what_validation_selects(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for select, epoch in {"mean": 3, "clean_accuracy": 2, "robust_accuracy": 1}.items():
        judged(monkeypatch, (0.3, 0.6), (0.9, 0.1), (0.6, 0.5), (0.5, 0.6))
        last = train(
            described(teachers, "natural", validation={"select": select}, training={"epochs": 4})
        ).history[-1]
        assert last.best is not None
        assert last.best.epoch == epoch


def test_the_earlier_of_two_equal_epochs_is_the_best(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, (0.5, 0.3), (0.5, 0.3))
    best = Best(1, 0.5, 0.3, 0.3, ByClass(clean=(0.5,), robust=(0.3,)))
    assert train(described(teachers, "natural")).history[-1].best == best


def test_robust_overfitting_is_the_fall_from_the_highest_robust_accuracy(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, (0.5, 0.3), (0.6, 0.5), (0.9, 0.2))
    history = train(described(teachers, "natural", training={"epochs": 3})).history
    assert [e.robust_overfitting_gap for e in history] == pytest.approx([0, 0, 0.3])


def test_rungs_and_the_last_epoch_are_validated_whatever_the_interval(teachers: Path) -> None:
    config = described(
        teachers, "natural", validation={"every": 3}, training={"epochs": 5, "batch_size": 100}
    )
    epochs = list(Trainer(config, fidelities=[Fidelity(epochs=2), Fidelity(epochs=5)]).epochs())
    assert [e.epoch for e in epochs if e.clean_accuracy is not None] == [2, 3, 5]
    assert epochs[3].best == epochs[2].best


def test_an_epoch_comes_back_from_its_dictionary(teachers: Path) -> None:
    epoch = train(described(teachers)).history[-1]
    assert epoch.reliability is not None
    assert EpochResult.from_dict(asdict(epoch)) == epoch


def test_the_loss_is_the_weighted_sum_of_the_terms_that_are_reported(teachers: Path) -> None:
    for epoch in train(described(teachers, {"name": "rslad", "adversarial_weight": 0.75})).history:
        assert set(epoch.terms) == {"adversarial", "natural"}
        assert epoch.loss == pytest.approx(
            0.75 * epoch.terms["adversarial"] + 0.25 * epoch.terms["natural"], rel=1e-5
        )


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_is_the_batch_to_a_method_that_takes_samples_one_by_one(
    teachers: Path, parts: int
) -> None:
    changes: dict[str, Any] = {"attack": {"start": "none"}}
    whole = train(described(teachers, "rslad", training=FLOAT64, **changes))
    split = train(
        described(teachers, "rslad", training={**FLOAT64, "microbatches": parts}, **changes)
    )
    for name, tensor in state(whole).items():
        torch.testing.assert_close(state(split)[name], tensor, rtol=0, atol=1e-12)
    assert split.history[-1].loss == pytest.approx(whole.history[-1].loss, abs=1e-12)
    assert split.history[-1].terms == pytest.approx(whole.history[-1].terms, abs=1e-12)


def test_a_clipped_step_moves_the_weights_by_no_more_than_the_rate_times_the_norm(
    teachers: Path,
) -> None:
    def moved(clip: float | None) -> float:
        optimizer = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "gradient_clip": clip}
        schedule = {"name": "constant"}
        config = described(
            teachers,
            "natural",
            optimizer=optimizer,
            schedule=schedule,
            training={"epochs": 1, "batch_size": 100},
        )
        run = Trainer(config)
        before = torch.cat([p.detach().flatten().clone() for p in run.student.parameters()])
        list(run.epochs())
        return float(
            (torch.cat([p.detach().flatten() for p in run.student.parameters()]) - before).norm()
        )

    assert moved(0.001) == pytest.approx(0.001, rel=1e-3)
    assert moved(None) > 0.01
    assert moved(1000.0) == moved(None)


def test_a_companion_with_an_optimizer_of_its_own_is_clipped_by_itself(teachers: Path) -> None:
    optimizer = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "gradient_clip": 0.001}
    run = Trainer(
        described(
            teachers,
            "peeraid",
            optimizer=optimizer,
            schedule={"name": "constant"},
            training={"epochs": 1, "batch_size": 100},
        )
    )

    def weights() -> list[Tensor]:
        networks = run.student, run.objective.companions["peer"]
        return [
            torch.cat([p.detach().flatten() for p in network.parameters()]) for network in networks
        ]

    before = weights()
    list(run.epochs())
    moved = [float((after - b).norm()) for after, b in zip(weights(), before, strict=True)]
    assert moved == pytest.approx([0.001, 0.001], rel=1e-3)


@pytest.mark.parametrize(
    "overrides",
    [
        {"training": {"precision": "bf16"}, "optimizer": {"lr": 0.2}},
        {"optimizer": {"name": "adamw", "lr": 0.01}},
    ],
)
def test_half_precision_and_adamw_learn(teachers: Path, overrides: dict[str, Any]) -> None:
    training = {"epochs": 12, **overrides.get("training", {})}
    history = train(
        described(teachers, "natural", **{**overrides, "training": training, **TINY})
    ).history
    assert history[-1].loss < 0.9 * history[0].loss


def test_float64_is_float64_to_the_last_weight(teachers: Path) -> None:
    run = train(described(teachers, "mtard", training=FLOAT64, averaging={"name": "ema"}, **TINY))
    assert {t.dtype for t in state(run).values() if t.is_floating_point()} == {torch.float64}


def test_teachers_neither_learn_nor_move(teachers: Path) -> None:
    run = Trainer(described(teachers, "ciard", **TINY))
    before = {
        role: {k: v.clone() for k, v in network.state_dict().items()}
        for role, network in run.teachers.items()
    }
    list(run.epochs())
    for role, network in run.teachers.items():
        assert_equal(before[role], network.state_dict())
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
        assert not network.training


def poisoned(monkeypatch: pytest.MonkeyPatch, *, epoch: int, batch: int, value: float) -> None:
    """Let one image of one batch be no number."""
    whole = trainer.data.Batches.epoch

    def spoil(self: Any, number: int) -> Any:
        for i, found in enumerate(whole(self, number)):
            spoilt = (number, i) == (epoch, batch)
            yield replace(found, x=torch.full_like(found.x, value)) if spoilt else found

    monkeypatch.setattr(trainer.data.Batches, "epoch", spoil)


def test_a_loss_that_is_no_number_ends_the_run_with_its_place_and_causes(
    teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = described(teachers, "natural", training={"epochs": 3})
    train(config, tmp_path, epochs=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    poisoned(monkeypatch, epoch=1, batch=2, value=math.nan)
    text = (
        r"epoch 2, batch 3: the loss is nan; likely causes: optimizer\.lr \(now 0\.05\) too high, a"
        r" method weight too large, "
        r"or bf16 where fp32 is needed; the checkpoint of epoch 1 is intact"
    )
    with pytest.raises(NonFiniteLossError, match=text):
        train(config, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(checkpoint.read(tmp_path / "last.safetensors")[1]["history"]) == 1
    monkeypatch.undo()
    assert len(train(config, tmp_path).history) == 3  # and from there it can go on


def test_weights_that_the_last_step_spoilt_are_not_saved(
    teachers: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = described(teachers, "natural")
    calls = []

    def spoil(optimizer: torch.optim.Optimizer, *_: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            optimizer.param_groups[0]["params"][0].data.view(-1)[0] = math.inf

    request.addfinalizer(register_optimizer_step_post_hook(spoil).remove)
    with pytest.raises(
        NonFiniteLossError,
        match=(
            r"epoch 1, batch 4: the weights are not finite after its step; .*; no epoch was"
            r" finished"
        ),
    ):
        train(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "the device"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "the device"),
        (MemoryError(), "this machine"),
    ],
)
def test_a_full_device_says_which_values_to_turn(
    teachers: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, what: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    run = Trainer(described(teachers, training={"microbatches": 2}))
    monkeypatch.setattr(run, "_step", full)
    text = (
        rf"epoch 1: {what} is out of memory; lower training\.batch_size \(now 25\), raise"
        r" training\.microbatches \(now 2; "
    )
    text += (
        r"BatchNorm then sees parts\), or set training\.precision to bf16; each of these begins the"
        r" run anew, in a folder of its own$"
    )
    with pytest.raises(OutOfMemoryError, match=text):
        list(run.epochs())


def test_a_device_that_is_full_before_the_first_epoch_is_a_sentence_too(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(setup, "place", full)
    with pytest.raises(
        OutOfMemoryError,
        match=(
            "before the first epoch: the device is out of memory; the networks and the training"
            " images"
        ),
    ):
        Trainer(described(teachers))


def test_a_recipe_without_a_file_says_how_to_make_it(teachers: Path) -> None:
    recipe = {
        "robust": {
            "network": {"name": "small_cnn"},
            "path": None,
            "recipe": {"method": {"name": "natural"}},
        }
    }
    with pytest.raises(
        ConfigError,
        match=(
            r"teachers\.robust has a recipe and no path: `rkdsearch teacher train` makes the file"
        ),
    ):
        Trainer(described(teachers, teachers=recipe))


def test_what_is_validated_is_the_network_that_is_delivered(teachers: Path, tmp_path: Path) -> None:
    config = described(teachers, "natural", training={"epochs": 1}, **TINY)
    run = train(config, tmp_path)
    tensors, _ = checkpoint.read(tmp_path / "best.safetensors")
    network = models.build(config.student, DIGITS)
    network.load_state_dict(tensors)
    x, y = run._validator.images(config.validation.images)
    assert (
        float((network.eval()(x[:]).argmax(dim=1) == y).double().mean())
        == run.history[0].clean_accuracy
    )


def test_processes_that_see_other_epochs_are_told_and_nothing_is_reduced(teachers: Path) -> None:
    """Accelerate before 1.14 sums where it is asked for the greatest."""
    one = Trainer(described(teachers, training={"epochs": 1, "batch_size": 100}))
    one.processes = 2
    for seen in ([3, 3], [5, 3]):
        told = SimpleNamespace(gather=lambda _, seen=seen: torch.tensor(seen))
        one.accelerator = told  # type: ignore[assignment]  # it can do nothing else
        with (
            nullcontext()
            if seen[0] == seen[1]
            else pytest.raises(
                CheckpointError, match="some processes see 5 finished epochs and others 3; put the"
            )
        ):
            one._check_same_start()
