"""Teachers and their logits, kept from one run of a process to the next."""

from functools import lru_cache
from pathlib import Path
from weakref import ref

import torch
from torch import Tensor, nn

from rkdsearch import data, models
from rkdsearch.accuracy import compute_in_parts
from rkdsearch.config import TeacherConfig
from rkdsearch.pace import Pace
from rkdsearch.task import ImageTask
from rkdsearch.teacher import load as load_teacher
from rkdsearch.training.precision import WEIGHT_DTYPES

_KEPT = 4  # teachers, and tables of logits
_BATCH = 500  # images whose logits are computed together, where the device holds them


class TeacherCache:
    """Frozen teachers by file and form, and their logits for images that come back unchanged.

    Keeps the four teachers that were used last, and at most four tables of logits.
    """

    def __init__(self) -> None:
        self._frozen = lru_cache(maxsize=_KEPT)(_frozen_teacher)
        # By the ids of network and images. The network is kept, so that no other gets its id;
        # images may be large and are not.
        self._logits: dict[tuple[int, int], tuple[nn.Module, ref[data.Images], Tensor]] = {}

    def clear(self) -> None:
        """Forget everything: the next run reads its teachers and computes their logits anew."""
        self._frozen.cache_clear()
        self._logits.clear()

    def teacher(
        self,
        config: TeacherConfig,
        task: ImageTask,
        *,
        precision: str,
        device: torch.device,
        channels_last: bool,
    ) -> nn.Module:
        """The teacher with its BatchNorm folded, for forward passes only; one network for all runs.

        Raises TeacherError where the file cannot be trusted or does not fit.
        """
        version = file_version(Path(str(config.path)))
        return self._frozen(config, version, task, precision, str(device), channels_last)

    def logits(self, network: nn.Module, images: data.Images, channels_last: bool) -> Tensor:
        """A teacher's logits (N, K) for all of these images.

        In the dtype of its weights, also where training runs under autocast: half precision would
        save time once, and the logits stay. Raises OutOfMemoryError where one image is too many.
        """
        # The network itself stands for its file, precision, device and memory layout.
        key = id(network), id(images)
        if key in self._logits:
            _, known_images, logits = self._logits[key]
            if known_images() is images:
                return logits
        elif len(self._logits) >= _KEPT:
            self._logits.clear()
        logits = _compute_logits(network, images, channels_last)
        self._logits[key] = network, ref(images), logits
        return logits


def file_version(path: Path) -> tuple[int, int]:
    """Time of the last change (nanoseconds) and size (bytes); zeros for a file that is missing.

    The loader reports a missing file better.
    """
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def load_unfolded(config: TeacherConfig, task: ImageTask, precision: str, device: str) -> nn.Module:
    """The teacher as its file has it, with its BatchNorm; read anew, never cached."""
    assert config.path is not None
    network = load_teacher(
        Path(config.path),
        config.network,
        task,
        sha256=config.sha256,
        key=config.key,
        ignore=config.ignore,
    )
    return network.to(device, WEIGHT_DTYPES[precision])


def _frozen_teacher(
    config: TeacherConfig,
    version: tuple[int, int],  # noqa: ARG001 - part of the key: a replaced file is another teacher
    task: ImageTask,
    precision: str,
    device: str,
    channels_last: bool,
) -> nn.Module:
    network = load_unfolded(config, task, precision, device)
    if channels_last:
        models.check_channels_last(config.network, network, task)
    network = models.fold(network)
    # One copy for each layout: `to` works in place, and another run may have asked for the other.
    return network.to(memory_format=torch.channels_last) if channels_last else network


def _compute_logits(network: nn.Module, images: data.Images, channels_last: bool) -> Tensor:
    weight = next(network.parameters())
    pace = Pace("a teacher's logits: {} images", len(images))

    def logits_of(part: slice) -> tuple[Tensor]:
        pace.at(part.start)
        x, _ = images.floats(part, device=weight.device)
        return (network(data.to_layout(x.to(weight.dtype), channels_last=channels_last)),)

    (logits,), _ = compute_in_parts(
        logits_of, len(images), _BATCH, place="a teacher's logits for the training images"
    )
    return logits


CACHE = TeacherCache()  # of this process; tests call `CACHE.clear()`
