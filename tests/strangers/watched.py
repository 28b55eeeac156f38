"""A network that writes down every batch it is given, and kills its process at one of them.

`WATCHED_LOG` names the file: one line a batch, with the part of the evaluation that asks, the
number of images, and a checksum of their pixels. At batch number `WATCHED_KILL` comes SIGKILL.
"""

import os
import signal
import sys
import zlib
from itertools import count
from pathlib import Path

from torch import Tensor, nn
from typing_extensions import override

_BATCHES = count(1)


def _asking() -> str:
    """The part of AutoAttack that asks; `checks`, `clean`; `-` for all else."""
    frame = sys._getframe(1)
    while frame is not None:
        name, seen = frame.f_code.co_name, frame.f_locals
        if name == "attacked" and "part" in seen:
            return f"{seen['part'].attack}/{seen['part'].target}"
        if name in {"run_checks", "run_block"}:
            return "checks" if name == "run_checks" else "clean"
        frame = frame.f_back  # type: ignore[assignment]
    return "-"


class Watched(nn.Module):
    """A linear network."""

    def __init__(self, classes: int, channels: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * size * size, classes)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        file, asking = os.environ.get("WATCHED_LOG"), _asking()
        if file is not None and asking != "-":
            with Path(file).open("a", encoding="utf-8") as log:
                log.write(f"{asking} {len(x)} {zlib.crc32(x.detach().numpy().tobytes())}\n")
            if next(_BATCHES) == int(os.environ.get("WATCHED_KILL", "0")):
                os.kill(os.getpid(), signal.SIGKILL)
        logits: Tensor = self.linear(x.flatten(1))
        return logits
