from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rkdsearch
from rkdsearch.arguments import checked
from rkdsearch.errors import ConfigError

PIXELS, LABELS = np.zeros((20, 8, 8), dtype=np.uint8), np.arange(20) % 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"attacks": ("pgd",)}, r"attacks must be 'clean', 'pgd20', .* or 'transfer', got"),
        ({"attacks": "clean"}, r"attacks must be a list, such as \['clean'\], got 'clean'"),
        ({"norm": "l3", "eps": [1]}, "norm must be 'linf' or 'l2', got 'l3'"),
        ({"eps": 0.1}, r"eps must be a list, such as \[0.1\], got 0.1"),
        ({"eps": "8/255"}, r"eps must be a list, such as \['8/255'\], got '8/255'"),
        ({"methods": "worst"}, "methods must be 'best', got 'worst'"),
        ({"images": "many"}, "images must be an integer, got 'many'"),
        ({"images": True}, "images must be a number, got True"),
    ],
)
def test_an_argument_of_another_kind_is_one_sentence_before_anything_begins(
    tmp_path: Path, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=f"^evaluate: {sentence}"):
        rkdsearch.evaluate(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("train", "more", "sentence"),
    [
        (None, {}, "train must be a list, got None"),
        ((PIXELS, LABELS), {"test": PIXELS}, "test has not as many parts as it must have, got"),
        ((PIXELS, LABELS), {"classes": "abcde"}, "classes must be a list"),
    ],
)
def test_images_that_are_no_pairs_are_one_sentence(
    tmp_path: Path, train: Any, more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=f"^write_images: {sentence}"):
        rkdsearch.write_images(tmp_path, train, **more)


def test_what_fits_arrives_as_it_is_and_a_number_of_numpys_is_one() -> None:
    @checked
    def told(*words: str, trials: int | None = None, pairs: tuple[Any, Any] = (1, 2)) -> Any:
        return words, trials, pairs

    assert told("a", "b", trials=np.int64(3)) == (("a", "b"), 3, (1, 2))  # type: ignore[arg-type]
    assert told(pairs=(PIXELS, LABELS))[2][0] is PIXELS
    assert told(pairs=([np.float32(0.05)], {"a": np.float32(1 / 3)}))[2] == (
        [0.05],
        {"a": 0.33333334},
    )
    assert told(pairs=(np.float64(0.1), np.float16(0.5)))[2] == (0.1, 0.5)
    with pytest.raises(ConfigError, match=r"^told: words must be a text, got"):
        told("a", 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'trails'"):
        told(trails=3)  # type: ignore[call-arg]


def test_pixels_and_labels_that_are_no_pair_are_a_sentence() -> None:
    config = rkdsearch.build_config(
        {"data.name": "arrays", "method.name": "natural", "student.name": "small_cnn"}
    )
    with pytest.raises(ConfigError, match=r"^splits_of: train has not as many parts as it must"):
        rkdsearch.splits_of(config.data, PIXELS, LABELS)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"must name a package, .*, got \['mylab'\]"):
        rkdsearch.allow_import(["mylab"])  # type: ignore[arg-type]
