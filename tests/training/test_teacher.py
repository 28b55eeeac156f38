import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rkdsearch import plugins
from rkdsearch.config import TeacherConfig, TrainConfig
from rkdsearch.errors import OutOfMemoryError, TeacherError
from rkdsearch.exporting.weights import convert
from rkdsearch.models import ModelConfig, build
from rkdsearch.teacher import read_contents, split_of
from rkdsearch.training import checkpoint, teacher
from rkdsearch.training.teacher import TeacherAccuracy, check_claims
from rkdsearch.training.trainer import Trainer
from tests.tasks import DIGITS
from tests.training.runs import TINY, described, train

RECIPE: dict[str, Any] = {
    "method": {"name": "pgd_at"},
    "attack": {"eps": 0.1, "steps": 1},
    "training": {"epochs": 2, "batch_size": 50, "device": "cpu"},
}


def with_recipe(teachers: Path) -> TrainConfig:
    return described(teachers, teachers={"robust": {"path": None, "recipe": RECIPE}})


def claimed(**claims: float) -> TeacherConfig:
    return TeacherConfig(network=ModelConfig(), path="teacher.safetensors", **claims)


def test_a_recipes_run_has_its_own_loop_and_the_studys_data_and_validation(teachers: Path) -> None:
    config = with_recipe(teachers)
    made_by = teacher.recipe_run(config, "robust")
    assert made_by is not None
    assert (made_by.training.epochs, made_by.attack.steps) == (2, 1)
    assert (made_by.data, made_by.validation) == (config.data, config.validation)
    assert made_by.student == ModelConfig(name="small_cnn", width=4)
    assert teacher.recipe_run(config, "natural") is None  # it has a file


def test_a_run_refuses_a_teacher_whose_logits_are_in_another_order(
    teachers: Path, tmp_path: Path
) -> None:
    """Nobody measures the teacher of a single run."""
    config = described(teachers, "rslad", training={"epochs": 1, "batch_size": 100})
    theirs = Path(str(config.teachers.of("robust").path))
    tensors = read_contents(theirs).tensors
    for order, fits in (([*"0123456789"], True), ([*"1023456789"], False), ([*"abcdefghij"], True)):
        path = tmp_path / f"{''.join(order)}.safetensors"
        save_file(tensors, path, metadata={"classes": json.dumps(order)})
        named = config.teachers.of("robust").model_copy(update={"path": str(path), "sha256": None})
        run = config.model_copy(
            update={"teachers": config.teachers.model_copy(update={"robust": named})}
        )
        with nullcontext() if fits else pytest.raises(TeacherError, match="in the order 1, 0, 2"):
            Trainer(run)


def test_a_teacher_that_an_earlier_version_made_is_known_by_its_run(
    teachers: Path, tmp_path: Path
) -> None:
    made_by = teacher.recipe_run(with_recipe(teachers), "robust")
    assert made_by is not None
    train(made_by, teacher.folder_of(made_by, tmp_path))
    (home,) = tmp_path.iterdir()
    tensors, state = checkpoint.read(home / "last.safetensors")
    del state["run"]["data"]["test_split"]  # a field that came later: the fingerprint was another
    checkpoint.write(home / "last.safetensors", tensors, state)
    earlier = home.rename(tmp_path / "0123456789abcdef")
    assert teacher.folder_of(made_by, tmp_path) == earlier
    other = made_by.model_copy(update={"training": made_by.training.model_copy(update={"seed": 9})})
    assert teacher.folder_of(other, tmp_path) != earlier


def test_a_teacher_is_made_once_and_then_known_by_file_and_hash(
    teachers: Path, tmp_path: Path
) -> None:
    config = with_recipe(teachers)
    made_by = teacher.recipe_run(config, "robust")
    assert made_by is not None
    home = teacher.folder_of(made_by, tmp_path)
    assert not teacher.is_trained(made_by, home)
    train(made_by, home, epochs=1)
    assert not teacher.is_trained(made_by, home)
    train(made_by, home)
    assert teacher.is_trained(made_by, home)
    assert [e.epoch for e in teacher.history_of(home)] == [1, 2]
    assert config.teachers.robust is not None
    ready = teacher.from_folder(config.teachers.robust, home)
    assert (ready.recipe, len(ready.sha256 or "")) == (None, 64)
    measured = teacher.measure(ready, config)
    best = teacher.history_of(home)[-1].best
    assert best is not None
    assert (measured.clean_accuracy, measured.robust_accuracy, measured.images) == (
        best.clean_accuracy,
        best.robust_accuracy,
        30,
    )
    assert measured.measured_on == "validation images, held out from its training"


@pytest.mark.parametrize(
    ("claim", "believed"), [(0.52, True), (0.49, True), (0.45, True), (0.55, False)]
)
def test_a_claim_is_refuted_only_by_less_than_its_interval_allows(
    claim: float, believed: bool
) -> None:
    measured = TeacherAccuracy(
        "", clean_accuracy=0.9, robust_accuracy=0.5, images=10_000, measured_on=""
    )  # 99 %: 0.487 to 0.513, and a point more
    if believed:
        check_claims(claimed(robust_accuracy=claim), measured, "x.yaml")
    else:
        with pytest.raises(
            TeacherError,
            match=(
                rf"x\.yaml: robust_accuracy is claimed to be {claim:.3f} and was measured as 0\.500"
                r" on 10000"
            ),
        ):
            check_claims(claimed(robust_accuracy=claim), measured, "x.yaml")


def test_who_claims_nothing_is_not_checked() -> None:
    check_claims(claimed(), TeacherAccuracy("", 0.1, 0.0, 100, ""), "x.yaml")


def test_a_device_too_full_for_a_teacher_to_be_measured_names_its_file(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    config = described(teachers)
    monkeypatch.setattr(teacher, "load_network", full)
    assert config.teachers.robust is not None
    with pytest.raises(
        OutOfMemoryError,
        match=(
            r"robust\.safetensors, to be measured: the device is out of memory; does another"
            r" program"
        ),
    ):
        teacher.measure(config.teachers.robust, config)


@pytest.mark.parametrize(
    ("there", "device", "chosen"),
    [(True, "auto", "cuda"), (True, "cpu", "cpu"), (False, "auto", "cpu")],
)
def test_a_teacher_is_measured_where_the_run_computes(
    there: bool, device: str, chosen: str, teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert teacher.device_of(described(teachers, training={"device": device})).type == chosen


@pytest.fixture(scope="module")
def ours(teachers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best.safetensors of a run of ours."""
    folder = tmp_path_factory.mktemp("ours")
    train(described(teachers, "natural", training={"epochs": 1}), folder)
    return folder / "best.safetensors"


HELD_OUT = "validation images, held out from its training"
FLAGGED = (
    "validation images, perhaps not held out: these images may be among those it was trained on,"
    " and its accuracy here may be optimistic"
)


@pytest.mark.parametrize(
    ("file", "trained_on", "data", "sentence"),
    [
        ("ours", None, {}, HELD_OUT),
        ("ours", None, {"augment": "crop_flip"}, HELD_OUT),
        ("ours", None, {"split_seed": 1}, FLAGGED),
        ("converted", None, {}, HELD_OUT),
        ("a stranger's", None, {}, FLAGGED),
        (
            "a stranger's",
            "other",
            {},
            "validation images, held out from its training as trained_on declares",
        ),
        (
            "a stranger's",
            "train",
            {},
            (
                "validation images, not held out: it was trained on all training images, these"
                " among them, and its accuracy here is optimistic"
            ),
        ),
    ],
)
def test_a_teachers_accuracy_says_whether_the_images_were_held_out_from_its_training(
    file: str,
    trained_on: str | None,
    data: dict[str, Any],
    sentence: str,
    teachers: Path,
    ours: Path,
    tmp_path: Path,
) -> None:
    path = {
        "ours": ours,
        "converted": tmp_path / "safe.safetensors",
        "a stranger's": tmp_path / "theirs.pt",
    }[file]
    if file == "converted":
        convert(ours, path)
    if file == "a stranger's":
        torch.save(read_contents(ours).tensors, path)
    network = {"name": "small_cnn", "width": 2}
    config = described(
        teachers,
        data=data,
        teachers={"robust": {"path": str(path), "network": network, "trained_on": trained_on}},
    )
    assert config.teachers.robust is not None
    assert teacher.measure(config.teachers.robust, config).measured_on == sentence


@pytest.mark.parametrize(
    "content", ["{", '{"state": "3"}', '{"state": "{}"}', '{"state": "{\\"split_sha256\\": 7}"}']
)
def test_a_header_that_says_something_else_says_nothing_of_a_split(
    content: str, tmp_path: Path
) -> None:
    try:
        metadata = json.loads(content)
    except ValueError:
        (tmp_path / "x.safetensors").write_text(content)
    else:
        save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors", metadata)
    assert split_of(tmp_path / "x.safetensors") is None
    assert split_of(tmp_path / "gone.safetensors") is None


def test_a_run_whose_inner_problem_alone_asks_the_teacher_has_it(teachers: Path) -> None:
    config = described(
        teachers, "pgd_at", attack={"objective": "teacher_clean"}, training={"epochs": 1}
    )
    assert len(train(config).history) == 1


def test_a_companion_that_copies_a_teacher_keeps_the_batchnorm_that_the_trainer_folds_away(
    teachers: Path, tmp_path: Path
) -> None:
    plugins.allow_import("tests.training")
    network = build(ModelConfig.model_validate(TINY["student"]), DIGITS)
    save_file(network.state_dict(), tmp_path / "tiny.safetensors")
    robust = {"robust": {"path": str(tmp_path / "tiny.safetensors"), "network": TINY["student"]}}
    run = Trainer(
        described(
            teachers,
            {"name": "ciard", "retraining_start": 0.9},
            teachers=robust,
            training={"epochs": 1},
        )
    )
    copied = run.objective.companions["robust"]
    norms = [
        [m for m in n.modules() if isinstance(m, nn.BatchNorm2d)]
        for n in (run.teachers["robust"], copied)
    ]
    assert [len(found) for found in norms] == [0, 2]
    weights, before = {k: v.clone() for k, v in copied.named_parameters()}, norms[1][0].running_mean
    assert before is not None
    before = before.clone()
    list(run.epochs())
    # It does not learn yet; its statistics move already.
    assert all(torch.equal(v, weights[k]) for k, v in copied.named_parameters())
    assert not torch.equal(norms[1][0].running_mean, before)  # type: ignore[arg-type]  # it has statistics
