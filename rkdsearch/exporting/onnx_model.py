"""A network as an ONNX file: pixels of [0, 1] in, logits out, for any number of images.

Normalisation is inside. The file is compared with the network before it is delivered.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rkdsearch.atomic_file import replacing
from rkdsearch.errors import RkdError

INPUT, OUTPUT = "pixels", "logits"
TOLERANCE = 1e-5  # of the largest logit, or of 1


def require_packages() -> None:
    """Raise RkdError where a package that `write` needs is missing."""
    try:
        import onnx  # noqa: F401 - torch's exporter needs both, and reports it late
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RkdError(
            "--onnx needs the packages onnx and onnxscript for torch's exporter, and"
            f" '{error.name}' is not installed; install rkdsearch[export], or leave --onnx out"
        ) from error


def write(network: nn.Module, images: Tensor, target: Path) -> None:
    """Write `network` (eval mode), whole or not at all.

    Network and file are compared on `images` (N, C, H, W), pixels of [0, 1]. Raises RkdError where
    torch cannot express the network or the file computes other logits, DiskError where the file
    cannot be written.
    """
    with replacing(target) as temporary:
        temporary.touch()  # a folder that takes no file is told before the export, which is slow
        _export(network, images.shape[1:], temporary, target)
        logits = _run_written(temporary, images, target)
        with torch.inference_mode():
            expected = network(images)
        difference = float((logits - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise RkdError(
                f"{target}: its logits are up to {difference:.1e} from the network's on"
                f" {len(images)} images, and at most {TOLERANCE:g} is allowed; leave --onnx out, or"
                " try another version of torch or onnxruntime"
            )


def _export(network: nn.Module, shape: Sequence[int], file: Path, target: Path) -> None:
    """Write the network for images of this shape (C, H, W) to `file`; errors name the `target`."""
    try:
        # Two images, because torch takes a dimension of 1 for a constant.
        program = torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("images")},),
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise RkdError(
            f"{target}: torch cannot express a {type(network).__name__} in ONNX"
            f" ({_first_line(error)}); leave --onnx out, or use another network"
        ) from error
    assert program is not None
    program.save(file)


def _run_written(file: Path, images: Tensor, target: Path) -> Tensor:
    try:
        return run(file, images)
    except Exception as error:  # onnxruntime's errors have no class in common
        raise RkdError(
            f"{target}: was written, but does not run: {_first_line(error)}; leave --onnx out, or"
            " try another onnxruntime"
        ) from error


def run(file: Path, images: Tensor) -> Tensor:
    """Logits (N, K) by onnxruntime; without it by onnx's own reference, which is slow."""
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
    """First line of the error's cause, without the exporter's pages of advice."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
