import argparse
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rkdsearch import plugins
from rkdsearch.accuracy import evaluate_accuracy
from rkdsearch.attacks import Attack, Linf, MarginAttack
from rkdsearch.errors import TeacherError
from rkdsearch.flags import check
from rkdsearch.models import ModelConfig, build, features, normalisation
from rkdsearch.results.flags import raised
from rkdsearch.task import ImageTask
from rkdsearch.teacher import classes_of, fingerprint, load, read_contents
from tests.tasks import CIFAR10, DIGITS, square

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.0, 2.0])}
MLP = ModelConfig(name="mlp", width=4)
TASK = square(classes=3, channels=1, size=4)


class Bomb:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def saved(content: object, path: Path, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(
        torch.equal(found[name], STATE[name]) for name in STATE
    )


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {
            "state_dict": STATE,
            "epoch": 7,
            "best_acc": np.float64(0.5),
            "args": argparse.Namespace(lr=0.1, milestones=[1, 2]),
        },
        {"model": STATE, "optimizer": {"state": {}}},
        {"net": STATE, "acc": np.float32(94.5), "when": np.int64(3)},
        {"last": {name: -tensor for name, tensor in STATE.items()}, "best": STATE},
        {"model": {"state_dict": STATE}},
        {name: torch.nn.Parameter(tensor) for name, tensor in STATE.items()},
    ],
    ids=["bare", "state_dict", "model", "net", "last and best", "nested", "parameters"],
)
@pytest.mark.parametrize("new_format", [True, False])
def test_weights_are_found_in_what_scripts_save(
    content: object, new_format: bool, tmp_path: Path
) -> None:
    path = saved(content, tmp_path / "teacher.anything", _use_new_zipfile_serialization=new_format)
    found = read_contents(path).tensors
    assert same(found)
    assert not any(tensor.requires_grad for tensor in found.values())


def test_numpy_numbers_of_older_numpys_are_read(tmp_path: Path) -> None:
    path = saved(
        {"state_dict": STATE, "acc": np.float64(0.5)},
        tmp_path / "teacher.pt",
        _use_new_zipfile_serialization=False,
    )
    content = path.read_bytes()
    assert content.count(b"numpy._core.multiarray") == 1
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert same(read_contents(path).tensors)


def test_safetensors_are_known_by_their_content(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "teacher.pt")
    assert same(read_contents(tmp_path / "teacher.pt").tensors)


OTHER = {name: -tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    ("content", "key", "told"),
    [
        (
            {"state_dict": OTHER, "state_dict_ema": STATE, "epoch": 3},
            "state_dict_ema",
            "read 'state_dict_ema'; left: state_dict, epoch",
        ),
        ({"model": OTHER, "model_ema": {"module": STATE}}, "model_ema", None),
        ({"ema": {"net": STATE, "decay": 0.9}, "net": OTHER}, "ema.net", None),
        ({"student": OTHER, "teacher": STATE}, "teacher", "read 'teacher'; left: student"),
        (
            {
                f"{who}.{name}": t
                for who, s in (("s", OTHER), ("t", STATE))
                for name, t in s.items()
            },
            "t",
            None,
        ),
        ({"encoder": STATE, "epoch": 3}, None, "read 'encoder'; left: epoch"),
        ({"state_dict": STATE, "optimizer": {}}, None, "read 'state_dict'; left: optimizer"),
    ],
)
def test_an_entry_is_chosen_by_key_and_what_was_left_is_told(
    content: object, key: str | None, told: str | None, tmp_path: Path
) -> None:
    found = read_contents(saved(content, tmp_path / "teacher.pt"), key)
    assert same(found.tensors)
    assert told in (None, found.described)


def test_a_key_that_is_not_there_is_told_what_is(tmp_path: Path) -> None:
    path = saved({"model": STATE, "model_ema": STATE}, tmp_path / "teacher.pt")
    with pytest.raises(TeacherError, match="has no entry 'ema'; there are model, model_ema"):
        read_contents(path, "ema")
    path = saved({"first": STATE, "second": STATE}, tmp_path / "two.pt")
    with pytest.raises(TeacherError, match="entries are first, second; name one of several by"):
        read_contents(path)


NORMALISED = ModelConfig(name="mlp", width=7, mean=(0.4,), std=(0.2,))


def ours(path: Path) -> Path:
    """A file that describes its network, as `export` writes it."""
    network = build(NORMALISED, DIGITS)
    metadata = {"network": NORMALISED.model_dump_json(), "classes": '["a", "b"]'}
    save_file(network.state_dict(), path, metadata)
    return path


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(name="mlp"),
        ModelConfig(name="mlp", width=7),
        ModelConfig(name="mlp", width=7, mean=(0.4,), std=(0.2,)),
    ],
)
def test_a_file_of_ours_brings_its_width_and_its_normalisation(
    config: ModelConfig, tmp_path: Path
) -> None:
    network = load(ours(tmp_path / "student.safetensors"), config, DIGITS)
    assert normalisation(network) == (pytest.approx((0.4,)), pytest.approx((0.2,)))
    assert classes_of(tmp_path / "student.safetensors") == ("a", "b")


@pytest.mark.parametrize(
    ("config", "law"),
    [
        (ModelConfig(name="mlp", mean=(0.5,), std=(0.2,)), r"header says mean \(0.4,\), and the"),
        (ModelConfig(name="mlp", width=8), "says width 7, and the config's network has width 8"),
        (
            ModelConfig(name="my_lab.MLP"),
            r"says mean \(0.4,\), and the config's network has mean none",
        ),
        (ModelConfig(), "header says name mlp, and the config's network has name small_cnn"),
    ],
)
def test_a_config_that_contradicts_a_file_of_ours_is_refused(
    config: ModelConfig, law: str, tmp_path: Path
) -> None:
    with pytest.raises(TeacherError, match=law):
        load(ours(tmp_path / "student.safetensors"), config, DIGITS)


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("weights"), io.BytesIO())


def truncated(save: Callable[[Path], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save(path)
        path.write_bytes(path.read_bytes()[:-100])

    return write


@pytest.mark.parametrize(
    ("write", "verdict"),
    [
        (lambda path: None, "cannot be read: No such file or directory; check the path"),
        (Path.mkdir, "cannot be read: Is a directory"),
        (Path.touch, "is empty; download it again"),
        (
            lambda path: path.write_text("\n<!DOCTYPE html><html>Quota exceeded</html>"),
            "is a web page, not weights",
        ),
        (
            lambda path: path.write_text(
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3"
            ),
            "is a git-lfs pointer",
        ),
        (tar, "is a tar archive; unpack it"),
        (lambda path: path.write_bytes(b"\x1f\x8b\x08\x00rest"), "is compressed by gzip"),
        (
            lambda path: path.write_bytes(pickle.dumps({"weights": [1.0]})),
            "is a plain Python pickle, which may run any code",
        ),
        (
            lambda path: path.write_text("accuracy 0.9"),
            "is neither safetensors nor a torch file .it begins with b'accuracy'",
        ),
        (truncated(lambda path: saved(STATE, path)), "is truncated or damaged .*download it again"),
        (
            truncated(lambda path: saved(STATE, path, _use_new_zipfile_serialization=False)),
            "is truncated or damaged .*download it again",
        ),
        (
            truncated(lambda path: save_file({"a": torch.rand(64)}, path)),
            "is truncated or damaged .*download it again",
        ),
        (
            lambda path: saved({"epoch": 3, "acc": 0.5}, path),
            "holds no weights: its entries are epoch, acc",
        ),
        (lambda path: saved([1, 2], path), "holds list, not a mapping"),
        (
            lambda path: saved({"state_dict": STATE, "model": ModelConfig}, path),
            "holds more than weights .rkdsearch.models.ModelConfig",
        ),
    ],
    ids=[
        "absent",
        "folder",
        "empty",
        "html",
        "lfs",
        "tar",
        "gzip",
        "pickle",
        "text",
        "zip",
        "old",
        "safetensors",
        "no weights",
        "list",
        "class",
    ],
)
def test_a_file_that_is_no_teacher_is_told_what_it_is(
    write: Callable[[Path], object], verdict: str, tmp_path: Path
) -> None:
    path = tmp_path / "teacher.pt"
    write(path)
    with pytest.raises(TeacherError, match=f"teacher.pt: {verdict}"):
        read_contents(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_malicious_file_runs_nothing(new_format: bool, tmp_path: Path) -> None:
    content = {"state_dict": STATE, "extra": Bomb(tmp_path / "ran")}
    path = saved(content, tmp_path / "teacher.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(
        TeacherError, match=r"holds more than weights .\w+.mkdir.*its state_dict\(\) alone"
    ):
        read_contents(path)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # the bomb is real


def test_a_fingerprint_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "teacher.pt").write_bytes(b"abc")
    assert (
        fingerprint(tmp_path / "teacher.pt")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(TeacherError, match=r"absent.pt: cannot be read"):
        fingerprint(tmp_path / "absent.pt")


def test_a_loaded_teacher_is_frozen_and_leaves_the_random_state_alone(tmp_path: Path) -> None:
    made = build(MLP, TASK)
    path = saved({"state_dict": made.state_dict()}, tmp_path / "teacher.pt")
    before = torch.get_rng_state()
    teacher = load(path, MLP, TASK, sha256=fingerprint(path))
    assert torch.equal(torch.get_rng_state(), before)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(teacher(x), made(x))


def test_another_file_than_the_one_named_is_refused(tmp_path: Path) -> None:
    path = saved(build(MLP, TASK).state_dict(), tmp_path / "teacher.pt")
    with pytest.raises(
        TeacherError,
        match=(
            rf"teacher.pt: sha256 must be {'0' * 64}, got {fingerprint(path)}: this is another file"
        ),
    ):
        load(path, MLP, TASK, sha256="0" * 64)


CIFAR_MEAN = (0.4914, 0.4822, 0.4465)


@dataclass(frozen=True)
class Published:
    """A published file, its network, and its published accuracy on 1,000 test images."""

    file: str
    config: ModelConfig
    data: str
    task: ImageTask
    penultimate: int
    clean: float
    robust: dict[float, float]  # by eps, PGD-20 with one start

    def opened(self) -> tuple[nn.Module, Tensor, Tensor]:
        """The teacher, x and y."""
        from PIL import Image
        from pyarrow import parquet

        from tests.shared import shared

        teacher = load(
            shared("teachers") / self.file,
            self.config,
            self.task,
        )
        rows = (
            parquet.read_table(shared("data") / self.data / "test.parquet")
            .slice(0, 1000)
            .to_pylist()
        )
        pixels = np.stack(
            [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]
        )
        x = (
            torch.from_numpy(pixels)
            .float()
            .reshape(1000, *self.task.shape[1:], self.task.channels)
            .permute(0, 3, 1, 2)
            / 255
        )
        return teacher, x, torch.tensor([row["label"] for row in rows])


def _described(network: str, **normalisation: Any) -> ModelConfig:
    return ModelConfig(name=f"tests.foreign_networks.{network}", **normalisation)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Published]:
    """Published teachers by the name of their network."""
    monkeypatch.setattr(plugins, "_allowed", {"tests"})
    resnet = _described("ResNet4b", mean=CIFAR_MEAN, std=(0.2470, 0.2435, 0.2616))
    cnn = _described("cnn_a", mean=CIFAR_MEAN, std=(0.2009,) * 3)
    return {
        "LeNet5": Published(
            "mnist_lenet5_advtrained.pt",
            _described("LeNet5"),
            "mnist",
            square(classes=10, channels=1, size=28),
            200,
            0.982,
            {0.3: 0.925},
        ),
        "ResNet4b": Published(
            "resnet4b.pth", resnet, "cifar10", CIFAR10, 100, 0.771, {2 / 255: 0.619, 8 / 255: 0.159}
        ),
        "cnn_a": Published(
            "cifar_cnn_a_adv4.model",
            cnn,
            "cifar10",
            CIFAR10,
            100,
            0.602,
            {2 / 255: 0.515, 8 / 255: 0.258},
        ),
    }


@pytest.mark.parametrize("name", ["LeNet5", "ResNet4b", "cnn_a"])
def test_a_published_robust_teacher_is_as_accurate_here_as_where_it_was_measured(
    published: dict[str, Published], name: str
) -> None:
    teacher, x, y = published[name].opened()
    with torch.no_grad():
        found = features(teacher, x)
    assert found.penultimate.shape == (1000, published[name].penultimate)
    assert float((found.logits.argmax(dim=1) == y).float().mean()) == pytest.approx(
        published[name].clean, abs=0.002
    )


@pytest.mark.long
@pytest.mark.parametrize("name", ["LeNet5", "ResNet4b", "cnn_a"])
def test_a_published_robust_teacher_is_as_robust_here_as_where_it_was_measured(
    published: dict[str, Published], name: str
) -> None:
    teacher, x, y = published[name].opened()
    for eps, expected in published[name].robust.items():
        results, _ = evaluate_accuracy(
            teacher.eval(),
            x,
            y,
            Attack(Linf(eps), steps=20, step_size=eps / 8, initial="uniform_clipped"),
        )
        assert results.robust_accuracy == pytest.approx(expected, abs=0.01)


@pytest.mark.long
@pytest.mark.parametrize("name", ["LeNet5", "ResNet4b", "cnn_a"])
def test_no_sign_of_a_failed_attack_is_seen_on_a_published_robust_teacher(
    published: dict[str, Published], name: str
) -> None:
    teacher, x, y = published[name].opened()
    for eps in published[name].robust:
        found = check(teacher.eval(), x[:100], y[:100], MarginAttack(Linf(eps), 10)).counts
        assert raised(found) == ()


def test_weights_that_are_whole_numbers_are_refused(tmp_path: Path) -> None:
    weights = build(MLP, TASK).state_dict()
    torch.save({name: tensor.int() for name, tensor in weights.items()}, tmp_path / "int.pt")
    with pytest.raises(
        TeacherError, match=r"weights must be floating-point numbers, got torch.int32 in "
    ):
        load(tmp_path / "int.pt", MLP, TASK)
