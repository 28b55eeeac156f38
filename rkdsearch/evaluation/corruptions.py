"""Common corruptions of test images, by plain definitions, at five severities.

After Hendrycks & Dietterich (ICLR 2019, https://arxiv.org/abs/1903.12261), with the constants of
their CIFAR-10-C; lengths in pixels grow with the image's side, which is 32 there. They are not its
very images: those are evaluated by `--data npy:PATH`. x are pixels of [0, 1], c is the severity's
constant.

    gaussian_noise   x + c n, n standard normal
    shot_noise       Poisson(c x) / c
    impulse_noise    a share c of all numbers becomes 0 or 1
    gaussian_blur    by c pixels of 32
    brightness       x + c
    contrast         c (x - m) + m, m the channel's mean
    pixelate         to c of its size, and back
    jpeg             compressed with quality c
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]
_Corruption = Callable[[Floats, float, np.random.Generator], Floats]


def corrupted(image: Floats, name: str, severity: int) -> Bytes:
    """The image (H, W, C), pixels of [0, 1], as bytes of 0 to 255.

    Random numbers follow from the image itself: another subset has the same.
    """
    corruption, constants = CORRUPTIONS[name]
    text = f"{name} {severity} ".encode() + np.ascontiguousarray(image).tobytes()
    seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    found = corruption(image, constants[severity - 1], np.random.default_rng(seed))
    levels: Bytes = np.rint(found.clip(0, 1) * 255).astype(np.uint8)
    return levels


def _gaussian_noise(x: Floats, c: float, random: np.random.Generator) -> Floats:
    return x + random.normal(0, c, x.shape)


def _shot_noise(x: Floats, c: float, random: np.random.Generator) -> Floats:
    return random.poisson(x * c) / c


def _impulse_noise(x: Floats, c: float, random: np.random.Generator) -> Floats:
    struck, white = random.random(x.shape) < c, random.random(x.shape) < 0.5
    return np.where(struck, white.astype(np.float64), x)


def _gaussian_blur(x: Floats, c: float, _: np.random.Generator) -> Floats:
    from scipy.ndimage import gaussian_filter

    pixels = c * min(x.shape[:2]) / 32
    blurred: Floats = gaussian_filter(x, sigma=(pixels, pixels, 0), mode="nearest")
    return blurred


def _brightness(x: Floats, c: float, _: np.random.Generator) -> Floats:
    return x + c


def _contrast(x: Floats, c: float, _: np.random.Generator) -> Floats:
    mean = x.mean(axis=(0, 1), keepdims=True)
    found: Floats = c * (x - mean) + mean
    return found


def _pixelate(x: Floats, c: float, _: np.random.Generator) -> Floats:
    from PIL import Image

    height, width, channels = x.shape
    small = max(1, round(width * c)), max(1, round(height * c))
    layers = [
        Image.fromarray(x[..., k].astype(np.float32))
        .resize(small, Image.Resampling.BOX)
        .resize((width, height), Image.Resampling.BOX)
        for k in range(channels)
    ]
    return np.stack([np.asarray(layer, dtype=np.float64) for layer in layers], axis=2)


def _jpeg(x: Floats, c: float, _: np.random.Generator) -> Floats:
    from PIL import Image

    pixels = np.rint(x * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if x.shape[2] == 1 else pixels).save(
        file, "JPEG", quality=int(c)
    )
    with Image.open(file) as image:
        return np.asarray(image, dtype=np.float64).reshape(x.shape) / 255


# name -> the corruption, and its constants by severity
CORRUPTIONS: Mapping[str, tuple[_Corruption, tuple[float, ...]]] = MappingProxyType(
    {
        "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.1)),
        "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
        "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
        "gaussian_blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
        "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
        "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
        "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
        "jpeg": (_jpeg, (80, 65, 58, 50, 40)),
    }
)
