"""Files that are written whole or not at all."""

import errno
import os
import time
from pathlib import Path

import pytest

from rkdsearch.atomic_file import replace_file, replacing, sweep
from rkdsearch.errors import DiskError


def test_a_file_is_replaced_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "page.html"
    replace_file(file, "ü")
    replace_file(file, b"\x00", sync=True)
    assert file.read_bytes() == b"\x00"
    assert [path.name for path in file.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("raised", "expected", "said"),
    [
        (OSError(errno.ENOSPC, "No space left"), DiskError, "a: could not be written: No space"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "^stop$"),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
)
def test_a_write_that_ends_early_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, raised: BaseException, expected: type[BaseException], said: str
) -> None:
    (tmp_path / "a").write_text("old")

    def write() -> None:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise raised

    with pytest.raises(expected, match=said):
        write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"file: is a file; name a folder"):
        replace_file(tmp_path / "file" / "a", "new")


def test_what_killed_writers_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".tmp-old", tmp_path / ".tmp-young"
    for path in (old, young):
        path.touch()
    os.utime(old, (time.time() - 61, time.time() - 61))
    assert sweep([tmp_path, tmp_path / "absent"], older_than=60) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-young"]
