"""An ONNX file is what its network is, for any number of images, or it is not written."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rkdsearch import data, models
from rkdsearch.data import DataConfig
from rkdsearch.errors import DiskError, RkdError
from rkdsearch.exporting import onnx_model
from rkdsearch.models import ModelConfig
from tests.tasks import DIGITS
from tests.training.networks import Tiny


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """(13, 1, 8, 8), pixels of [0, 1]."""
    return data.load_training(DataConfig(name="digits")).validation.floats(slice(0, 13))[0]


@pytest.fixture(scope="module")
def network(digits: Tensor) -> nn.Module:
    """With normalisation inside, and BatchNorm statistics that are not those of its birth."""
    torch.manual_seed(0)
    built = Tiny(classes=10, channels=1)
    models.normalise_inside(built, (0.3,), (0.25,))
    built(digits)
    return built.eval()


@pytest.fixture(scope="module")
def file(network: nn.Module, digits: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    onnx_model.write(network, digits[:5], target)
    assert [found.name for found in target.parent.iterdir()] == ["tiny.onnx"]
    return target


@pytest.fixture
def exported_once(file: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch exported for `file` is what it exports now: seconds each."""

    class Program:
        def save(self, target: Path) -> None:
            target.write_bytes(file.read_bytes())

    def export(exported: nn.Module, *_: object, **__: object) -> Program:
        assert exported is network
        return Program()

    monkeypatch.setattr(torch.onnx, "export", export)


@torch.inference_mode()
def apart(answers: Tensor, network: nn.Module, x: Tensor) -> float:
    """The largest difference of a logit."""
    return float((answers - network(x)).abs().max())


@pytest.mark.parametrize("engine", ["onnxruntime", "onnx.reference"])
@pytest.mark.parametrize("images", [1, 2, 13])
def test_the_file_gives_the_networks_logits_for_any_number_of_digits(
    network: nn.Module,
    digits: Tensor,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    images: int,
) -> None:
    if engine == "onnxruntime":
        pytest.importorskip(
            "onnxruntime",
            reason="needs rkdsearch[export]: onnxruntime is too large for the tests' own packages",
        )
    else:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    x = digits[:images]
    answers = onnx_model.run(file, x)
    assert answers.shape == (images, 10)
    assert apart(answers, network, x) < 1e-5
    assert apart(answers, network, (x - 0.3) / 0.25) > 1e-2  # the normalisation is inside, once


def test_a_network_that_flattens_its_images_takes_any_number_of_them_too(
    digits: Tensor, tmp_path: Path
) -> None:
    built = models.build(ModelConfig(name="mlp", width=16), DIGITS).eval()
    onnx_model.write(built, digits[:3], tmp_path / "network.onnx")
    assert apart(onnx_model.run(tmp_path / "network.onnx", digits), built, digits) < 1e-5


@pytest.mark.usefixtures("exported_once")
def test_a_file_with_other_logits_is_not_kept(
    network: nn.Module, digits: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnx_model.run
    for wrong in (1e-3, float("nan")):
        monkeypatch.setattr(onnx_model, "run", lambda path, x, wrong=wrong: real(path, x) + wrong)
        law = (
            r"student.onnx: its logits are up to (1.0e-03|nan) from the network's on 5 images, and"
            r" at most 1e-05 is allowed; leave --onnx out"
        )
        with pytest.raises(RkdError, match=law):
            onnx_model.write(network, digits[:5], tmp_path / "student.onnx")
    assert list(tmp_path.iterdir()) == []


class Undecided(nn.Module):
    """What it computes hangs on the numbers it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if bool(x.sum() > 0) else x.flatten(1) * 2


def test_a_network_that_onnx_cannot_express_is_said_in_one_sentence(
    digits: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(
        RkdError,
        match=r"student.onnx: torch cannot express a Undecided in ONNX \(.+\); leave --onnx out",
    ) as caught:
        onnx_model.write(Undecided().eval(), digits[:5], tmp_path / "student.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_said_before_the_export(
    network: nn.Module, digits: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.onnx, "export", None)  # told before it
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"file: is a file; name a folder"):
        onnx_model.write(network, digits[:5], tmp_path / "file" / "student.onnx")


@pytest.mark.usefixtures("exported_once")
def test_what_onnxruntime_refuses_is_said(
    network: nn.Module, digits: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session:
        def __init__(self, *given: Any, **settings: Any) -> None:
            raise RuntimeError("Conv(11) is not implemented")

    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    monkeypatch.setattr(sys.modules["onnxruntime"], "InferenceSession", Session, raising=False)
    with pytest.raises(RkdError, match=r"student.onnx: .*Conv\(11\) is not implemented"):
        onnx_model.write(network, digits[:5], tmp_path / "student.onnx")
    assert list(tmp_path.iterdir()) == []
