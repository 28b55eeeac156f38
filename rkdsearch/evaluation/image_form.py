"""Form of the images of `evaluate --data`: channels and size, as bytes (H, W, C)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rkdsearch.config import sentence
from rkdsearch.data import DataConfig
from rkdsearch.data.encoded import GREY_MODES, flat_image
from rkdsearch.errors import ConfigError

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Form:
    """Form of images as bytes (H, W, C): channels and (height, width), where these are given.

    `resample` is the filter that resizes them.
    """

    channels: int | None
    size: tuple[int, int] | None
    resample: str

    @classmethod
    def of(cls, given: Mapping[str, Any], resize: str) -> "Form":
        """The form in fields of section `data`; `resize` where they name no filter.

        Raises ConfigError for other fields, and for values that are none of theirs.
        """
        unknown = given.keys() - {"channels", "image_size", "resize"}
        if unknown:
            raise ConfigError(
                f"data.{min(unknown)}: has no meaning for images of --data; data.channels,"
                " data.image_size and data.resize have"
            )
        values = {"name": "folder:.", "resize": resize, **given}  # a name that may have all three
        try:
            config = DataConfig.model_validate(values)
        except ValidationError as error:
            raise ConfigError(sentence(error, DataConfig, "evaluate", "data.")) from None
        return cls(config.channels, config.height_and_width, config.resize)

    def __call__(self, image: Any) -> Bytes:
        """Bytes (H, W, C) of a Pillow image."""
        from PIL import Image, ImageOps

        channels = self.channels or (1 if image.mode in GREY_MODES else 3)
        converted = flat_image(image, channels)
        if self.size is not None:
            chosen = Image.Resampling[self.resample.upper()]
            converted = ImageOps.fit(converted, (self.size[1], self.size[0]), method=chosen)
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
