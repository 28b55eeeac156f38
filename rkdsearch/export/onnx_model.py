"""A network as an ONNX file: pixels of [0, 1] in, logits out, normalisation inside, any number of images; believed once it has answered."""

import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rkdsearch.errors import DiskError, RkdError

INPUT, OUTPUT = "pixels", "logits"
TOLERANCE = 1e-5  # of the largest logit, or of 1


def need() -> None:
    """Raise RkdError where a package is missing that `write` needs."""
    try:
        import onnx  # noqa: F401 - torch's exporter needs both, and its own complaint comes late
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RkdError(
            "--onnx needs the packages onnx and onnxscript for torch's exporter, and"
            f" '{error.name}' is not installed; install rkdsearch[export], or leave --onnx out"
        ) from error


def write(network: nn.Module, images: Tensor, target: Path) -> None:
    """Write `network`, in eval mode, whole or not at all; `images` (N, C, H, W), pixels of [0, 1], are asked of it and of the file.

    Raises RkdError where torch cannot express the network, or where the file answers otherwise;
    DiskError where it cannot be written.
    """
    temporary = target.with_name(f".{uuid.uuid4().hex}-{target.name}")
    try:
        # Two images: torch takes a dimension of 1 for a constant.
        program = torch.onnx.export(
            network,
            (torch.zeros(2, *images.shape[1:]),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("images")},),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(temporary)
        answers = _tried(temporary, images, target)
        with torch.inference_mode():
            expected = network(images)
        apart = float((answers - expected).abs().max())
        if not apart <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise RkdError(
                f"{target}: its logits are up to {apart:.1e} from the network's on {len(images)}"
                f" images, and at most {TOLERANCE:g} is believed; leave --onnx out, or try another"
                " version of torch or onnxruntime"
            )
        temporary.replace(target)
    except torch.onnx.OnnxExporterError as error:
        raise RkdError(
            f"{target}: torch cannot express a {type(network).__name__} in ONNX"
            f" ({_first_line(error)}); leave --onnx out, or use another network"
        ) from error
    except OSError as error:
        raise DiskError.at(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _tried(file: Path, images: Tensor, target: Path) -> Tensor:
    try:
        return run(file, images)
    except Exception as error:  # onnxruntime's errors have no class in common
        raise RkdError(
            f"{target}: was written, but does not run: {_first_line(error)}; leave --onnx out, or"
            " try another onnxruntime"
        ) from error


def run(file: Path, images: Tensor) -> Tensor:
    """Logits (N, K) by onnxruntime, or by onnx's own reference, which is slow, where onnxruntime is not installed."""
    session: Any
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(str(file))
    else:
        session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
    return torch.from_numpy(logits)


def _first_line(error: Exception) -> str:
    """The cause, without the exporter's pages of advice."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
