import numpy as np
import pytest

from rkdsearch.evaluation.corruptions import CORRUPTIONS, corrupted


def picture(side: int, channels: int) -> np.ndarray:
    """A smooth ramp with a bright square."""
    ramp = np.linspace(0.2, 0.7, side)[:, None] * np.linspace(0.5, 1, side)[None]
    ramp[side // 4 : side // 2, side // 4 : side // 2] = 0.95
    return np.stack([ramp] * channels, axis=2)


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3), (224, 3)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_is_further_from_the_image(name: str, side: int, channels: int) -> None:
    x = picture(side, channels)
    if name == "pixelate":  # a coarser grid may fit a smooth picture better
        x = (x + np.random.default_rng(0).normal(0, 0.1, x.shape)).clip(0, 1)
    found = [corrupted(x, name, severity) for severity in range(1, 6)]
    assert all(image.shape == x.shape and image.dtype == np.uint8 for image in found)
    distance = [float(np.square(image / 255 - x).mean()) for image in found]
    assert distance[0] > 0 or side == 8, "an image of 8 pixels is blurred by a tenth of one"
    assert distance[4] > distance[0]
    np.testing.assert_array_equal(corrupted(x, name, 3), found[2])


def test_each_is_its_definition() -> None:
    x = picture(32, 3)
    # noise of 0.1 is hidden at no pixel of the middle range; bytes add 1/255/sqrt(12)
    noise = corrupted(x, "gaussian_noise", 5) / 255 - x
    assert abs(float(noise[x < 0.6].std()) - 0.1) < 0.01
    shot = corrupted(np.full((64, 64, 1), 0.5), "shot_noise", 5) / 255
    assert abs(float(shot.std()) - (0.5 / 50) ** 0.5) < 0.01
    struck = corrupted(np.full((64, 64, 1), 0.5), "impulse_noise", 5)
    assert abs(float(np.isin(struck, (0, 255)).mean()) - 0.07) < 0.02
    bright = corrupted(x, "brightness", 2)
    np.testing.assert_allclose(bright / 255, (x + 0.1).clip(0, 1), atol=0.002)
    grey = corrupted(x, "contrast", 2) / 255
    np.testing.assert_allclose(grey, 0.5 * (x - x.mean()) + x.mean(), atol=0.002)
    flat = np.full((16, 16, 1), 0.4)
    for name in ("gaussian_blur", "pixelate", "jpeg", "contrast"):
        np.testing.assert_allclose(corrupted(flat, name, 5) / 255, 0.4, atol=0.005)
    stripes = np.tile([0.0, 1.0], 8)[None, :, None].repeat(16, axis=0)
    coarse = corrupted(stripes, "pixelate", 5)[..., 0] / 255
    assert float(coarse.std()) < 0.75 * float(stripes.std()), "stripes of one pixel are lost"
