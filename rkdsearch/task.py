"""The classification task: the images that a network takes and the classes that it tells apart."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageTask:
    """Images (N, C, H, W) in, logits (N, K) out: K `classes`, C `channels`, H and W in pixels."""

    classes: int
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.channels, self.height, self.width
