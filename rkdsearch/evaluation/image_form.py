"""Form of the images of `evaluate --data`: channels and size, as bytes (H, W, C)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkdsearch.errors import ConfigError

Bytes = NDArray[np.uint8]


class Form:
    """Form of images as bytes (H, W, C): `data.channels` and `data.image_size`, where given."""

    def __init__(self, channels: int | None, size: tuple[int, int] | None) -> None:
        self.channels, self.size = channels, size

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Form":
        """The form in fields of section `data`. Raises ConfigError for others."""
        unknown = given.keys() - {"channels", "image_size"}
        if unknown:
            raise ConfigError(
                f"data.{min(unknown)}: has no meaning for images of --data; data.channels and"
                " data.image_size have"
            )
        channels, size = given.get("channels"), given.get("image_size")
        if channels not in (None, 1, 3):
            raise ConfigError(f"data.channels must be 1 or 3, got {channels}")
        sides = [size, size] if isinstance(size, int) else size
        if sides is not None and not (
            isinstance(sides, list | tuple)
            and len(sides) == 2
            and all(isinstance(side, int) and side > 0 for side in sides)
        ):
            raise ConfigError(f"data.image_size must be N or [H, W] in pixels, got {size!r}")
        return cls(channels, None if sides is None else (int(sides[0]), int(sides[1])))

    def __call__(self, image: Any) -> Bytes:
        """Bytes (H, W, C) of a Pillow image."""
        from PIL import ImageOps

        channels = self.channels or (1 if image.mode in ("1", "L", "LA") else 3)
        converted = image.convert("L" if channels == 1 else "RGB")
        if self.size is not None:
            converted = ImageOps.fit(converted, (self.size[1], self.size[0]))
        return np.asarray(converted, dtype=np.uint8).reshape(
            converted.height, converted.width, channels
        )

    def array(self, image: Bytes) -> Bytes:
        """The same of bytes (H, W, C)."""
        from PIL import Image

        as_it_is = self.size is None and self.channels in (None, image.shape[2])
        return (
            image
            if as_it_is
            else self(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image))
        )
