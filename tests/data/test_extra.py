"""Generated images: mapped from an npz, never unpickled, and refused unless they fit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rkdsearch.data import DataConfig, load_training
from rkdsearch.data.extra import load_extra
from rkdsearch.errors import DataError
from tests.data.files import pictures, write_folder

LIKE_COUNTS = {"train/cat": 4, "train/dog": 4}


def config(root: Path, **fields: object) -> DataConfig:
    return DataConfig.model_validate(
        {"name": f"folder:{root}", "validation_fraction": 0.25, **fields}
    )


def test_an_npz_is_mapped_byte_for_byte(tmp_path: Path) -> None:
    write_folder(tmp_path, LIKE_COUNTS)
    np.savez(
        tmp_path / "more.npz", label=np.array([0, 1, 1], dtype=np.int32), image=pictures(3, 8, 3, 9)
    )
    splits = load_training(config(tmp_path, extra=str(tmp_path / "more.npz"), extra_fraction=0.5))
    assert splits.extra is not None
    assert splits.extra.mapped
    assert torch.equal(splits.extra.pixels, torch.from_numpy(pictures(3, 8, 3, 9)))
    assert splits.extra.labels.tolist() == [0, 1, 1]
    # the split is the same
    assert splits.fingerprint == load_training(config(tmp_path)).fingerprint
    assert load_training(config(tmp_path)).hashes["extra_sha256"] is None
    np.savez(
        tmp_path / "more.npz", label=np.array([0, 1, 1], dtype=np.int32), image=pictures(3, 8, 3, 8)
    )
    other = load_training(config(tmp_path, extra=str(tmp_path / "more.npz"), extra_fraction=0.5))
    assert other.hashes | {"extra_sha256": None} == splits.hashes | {"extra_sha256": None}
    assert len({other.extra_pixels, splits.extra_pixels, None}) == 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"image": pictures(2, 9, 3), "label": np.array([0, 1])},
            r"image must be uint8 \(N, 8, 8, 3\), got uint8 \(2, 9, 9, 3\)",
        ),
        (
            {"image": pictures(2, 8, 3) / 255, "label": np.array([0, 1])},
            "must be uint8 in C order, got float64",
        ),
        (
            {"image": pictures(2, 8, 3), "label": np.array([0, 2])},
            "label must be 0 to 1, got 2 in row 1",
        ),
        ({"image": pictures(2, 8, 3), "label": np.array([0])}, "label must be 2 integers"),
        ({"image": pictures(0, 8, 3), "label": np.array([], dtype=np.int64)}, "got no rows"),
        ({"image": pictures(2, 8, 3), "label": np.array([0, None])}, "must be an npz"),
        ({"image": pictures(2, 8, 3)}, "must be an npz with `image` and `label`"),
        ({"label": np.array([0])}, "must be an npz with `image` and `label`"),
    ],
)
def test_an_npz_that_does_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    write_folder(tmp_path, LIKE_COUNTS)
    np.savez(tmp_path / "more.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        load_extra(str(tmp_path / "more.npz"), load_training(config(tmp_path)).train)


def test_compressed_missing_and_foreign_files_say_what_to_do(tmp_path: Path) -> None:
    like = load_training(DataConfig()).train
    np.savez_compressed(tmp_path / "small.npz", image=pictures(2, 8, 1), label=np.array([0, 1]))
    with pytest.raises(DataError, match=r"write it with numpy\.savez instead of savez_compressed"):
        load_extra(str(tmp_path / "small.npz"), like)
    with pytest.raises(DataError, match=r"absent\.npz: must be an npz"):
        load_extra(str(tmp_path / "absent.npz"), like)
    (tmp_path / "page.npz").write_text("<html>not found</html>")
    with pytest.raises(DataError, match=r"page\.npz: must be an npz"):
        load_extra(str(tmp_path / "page.npz"), like)


def test_digits_have_16_grey_levels_and_take_no_extra_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "more.npz", image=pictures(2, 8, 1), label=np.array([0, 1]))
    with pytest.raises(DataError, match="digits has 0 to 16"):
        load_training(DataConfig(extra=str(tmp_path / "more.npz"), extra_fraction=0.5))
