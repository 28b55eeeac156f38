from pathlib import Path

import pytest

from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import CheckpointError, DataError
from rkdsearch.training import checkpoint
from rkdsearch.training.trainer import Trainer
from tests.training.runs import described


def test_every_epoch_is_trained_and_validated_as_its_fidelity_says(teachers: Path) -> None:
    validation = {"every": 10, "attack": {"steps": 3}}
    config = described(
        teachers,
        "pgd_at",
        attack={"steps": 5},
        validation=validation,
        training={"epochs": 6, "batch_size": 100},
    )
    fidelities = [
        Fidelity(epochs=2, training_attack_steps=1, validation_images=20),
        Fidelity(epochs=3, training_attack_steps=2, validation_attack_steps=1),
        Fidelity(epochs=5),
    ]
    found = [
        (e.training_attack_steps, e.validation_attack_steps, e.images)
        for e in Trainer(config, fidelities=fidelities).epochs()
    ]
    assert found[:3] == [(1, None, None), (1, 3, 20), (2, 1, 30)]
    assert found[3:] == [(5, None, None), (5, 3, 30)]  # the run ends with its last fidelity


def test_best_epoch_tracking_restarts_where_the_protocol_changes(teachers: Path) -> None:
    config = described(
        teachers,
        "natural",
        validation={"attack": {"steps": 3}},
        training={"epochs": 4, "batch_size": 100},
    )
    epochs = list(
        Trainer(
            config, fidelities=[Fidelity(epochs=2, validation_images=10), Fidelity(epochs=4)]
        ).epochs()
    )
    assert epochs[2].best is not None
    assert epochs[2].best.epoch == 3
    assert epochs[2].robust_peak == epochs[2].robust_accuracy


def test_a_cap_above_the_number_of_validation_images_changes_nothing(teachers: Path) -> None:
    config = described(
        teachers,
        "natural",
        validation={"attack": {"steps": 3}},
        training={"epochs": 3, "batch_size": 100},
    )
    rungs = [Fidelity(epochs=2, validation_images=5000), Fidelity(epochs=3)]
    capped, plain = list(Trainer(config, fidelities=rungs).epochs()), list(Trainer(config).epochs())
    assert [(e.best.epoch, e.robust_peak) for e in capped if e.best] == [
        (e.best.epoch, e.robust_peak) for e in plain if e.best
    ]
    few, all_of_them = Fidelity(epochs=2, validation_images=10), Fidelity(epochs=3)
    assert not few.same_validation(all_of_them, config.validation, 30)
    assert few.same_validation(all_of_them, config.validation, 10)


def test_a_capped_run_trains_as_one_whose_config_has_that_attack(teachers: Path) -> None:
    training = {"epochs": 2, "batch_size": 100}
    capped = described(
        teachers, "pgd_at", attack={"steps": 8, "relative_step_size": 0.25}, training=training
    )
    plain = described(
        teachers, "pgd_at", attack={"steps": 4, "relative_step_size": 0.5}, training=training
    )
    first = list(Trainer(capped, fidelities=[Fidelity(epochs=2, training_attack_steps=4)]).epochs())
    second = list(Trainer(plain).epochs())
    assert [e.loss for e in first] == [e.loss for e in second]
    assert [e.robust_accuracy for e in first] == [e.robust_accuracy for e in second]
    assert [e.loss for e in first] != [e.loss for e in Trainer(capped).epochs()]


def test_some_validation_images_are_of_all_classes(teachers: Path) -> None:
    config = described(
        teachers, "natural", validation={"images": 30}, training={"epochs": 1, "batch_size": 100}
    )
    trainer = Trainer(config, fidelities=[Fidelity(epochs=1, validation_images=10)])
    for count in (10, 30):
        x, y = trainer._validator.images(count)
        assert len(x) == len(y) == count
        assert y.bincount(minlength=10).tolist() == [count // 10] * 10


def test_fewer_validation_images_than_classes_are_refused_before_any_training(
    teachers: Path,
) -> None:
    with pytest.raises(
        DataError, match=r"validation.images: 9 of 30\d? images|validation.images: 9 of"
    ):
        Trainer(
            described(teachers, "natural"),
            fidelities=[Fidelity(epochs=1, validation_images=9), Fidelity(epochs=2)],
        )


def test_a_checkpoint_from_before_there_were_fidelities_is_resumed(
    teachers: Path, tmp_path: Path
) -> None:
    config = described(teachers, "natural", training={"epochs": 2, "batch_size": 100})
    list(Trainer(config, tmp_path, fidelities=[Fidelity(epochs=1)]).epochs())
    tensors, state = checkpoint.read(tmp_path / "last.safetensors")
    del state["fidelities"]
    checkpoint.write(tmp_path / "last.safetensors", tensors, state)
    fidelities = [Fidelity(epochs=1), Fidelity(epochs=2)]
    assert [e.epoch for e in Trainer(config, tmp_path, fidelities=fidelities).epochs()] == [2]


def test_a_checkpoint_that_names_its_fidelities_as_before_is_resumed_by_the_same_ones_only(
    teachers: Path, tmp_path: Path
) -> None:
    config = described(teachers, "natural", training={"epochs": 3, "batch_size": 100})
    fidelities = [Fidelity(epochs=1, training_attack_steps=2), Fidelity(epochs=3)]
    next(Trainer(config, tmp_path, fidelities=fidelities).epochs())
    tensors, state = checkpoint.read(tmp_path / "last.safetensors")
    del state["fidelities"]
    none = {"validation_steps": None, "validation_images": None}
    state["stages"] = [
        {"until": 1, "attack_steps": 2, **none},
        {"until": 3, "attack_steps": None, **none},
    ]
    checkpoint.write(tmp_path / "last.safetensors", tensors, state)
    with pytest.raises(CheckpointError, match="belongs to a run with other fidelities"):
        Trainer(config, tmp_path, fidelities=[Fidelity(epochs=3)]).resume()
    assert [e.epoch for e in Trainer(config, tmp_path, fidelities=fidelities).epochs()] == [2, 3]


def test_a_run_with_other_caps_is_not_resumed_and_one_with_another_rung_is(
    teachers: Path, tmp_path: Path
) -> None:
    config = described(teachers, "natural", training={"epochs": 3, "batch_size": 100})
    list(Trainer(config, tmp_path, fidelities=[Fidelity(epochs=1)]).epochs())
    capped = [Fidelity(epochs=2, training_attack_steps=1), Fidelity(epochs=3)]
    with pytest.raises(CheckpointError, match="belongs to a run with other fidelities"):
        Trainer(config, tmp_path, fidelities=capped).resume()
    rungs = [Fidelity(epochs=1), Fidelity(epochs=3)]
    assert [e.epoch for e in Trainer(config, tmp_path, fidelities=rungs).epochs()] == [2, 3]
