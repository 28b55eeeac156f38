"""Random numbers of an image: they follow from its pixels and a seed, whatever its batch.

Test evaluation draws from these. An image then has the same start in a subset, in a shard, and
after an interruption, and results that were measured apart can be put together.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageNoise:
    """Random numbers for images; `names` (a seed, an attack, a restart) tell its draws apart."""

    names: tuple[str | int, ...]

    def uniform(self, x: Tensor) -> Tensor:
        """Numbers of [-1, 1) for the images x (N, C, H, W), of their shape and on their device."""
        return self._drawn(x, torch.rand) * 2 - 1

    def normal(self, x: Tensor) -> Tensor:
        """Standard normal numbers for the images x (N, C, H, W)."""
        return self._drawn(x, torch.randn)

    def _drawn(self, x: Tensor, draw: Callable[..., Tensor]) -> Tensor:
        # On the CPU: every device then has the same numbers.
        images = np.ascontiguousarray(x.detach().cpu().numpy())
        name = repr(self.names).encode()
        found = torch.empty(x.shape)
        for i, image in enumerate(images):
            digest = hashlib.sha256(name + image.tobytes()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            found[i] = draw(x.shape[1:], generator=generator)
        return found.to(x.device)
