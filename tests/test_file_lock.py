import errno
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from rkdsearch.errors import DiskError, StudyError
from rkdsearch.file_lock import locked_by, one_writer

ROOT = Path(__file__).parents[2]

HOLD = """
import sys, time
from pathlib import Path
from rkdsearch.file_lock import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_link_in_a_copied_study_empties_no_other_file(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / ".driver").symlink_to(precious)
    with (
        pytest.raises(DiskError, match=r"study: could not be written: Too many levels of symbolic"),
        one_writer(tmp_path / "study"),
    ):
        pass
    assert precious.read_text() == "years of work"


def test_a_pipe_in_the_place_of_the_lock_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".driver")
    assert locked_by(tmp_path) is None
    with pytest.raises(DiskError, match="could not be written"), one_writer(tmp_path):
        pass


def test_a_second_driver_is_told_who_the_first_is_and_a_killed_one_leaves_nothing(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "study")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "held\n"
            law = (
                rf"study: is being searched by process {first.pid} on"
                rf" {re.escape(socket.gethostname())} since .* UTC; wait for its end"
            )
            with pytest.raises(StudyError, match=law), one_writer(tmp_path / "study"):
                pass
            assert str(locked_by(tmp_path / "study")).startswith(
                f"searched by process {first.pid} on "
            )
            shutil.copytree(tmp_path / "study", tmp_path / "copy")
            assert locked_by(tmp_path / "copy") is None
        finally:
            first.kill()
    # killed, its name still stands in the file, but nobody holds the lock
    assert (tmp_path / "study" / ".driver").read_text() != ""
    assert locked_by(tmp_path / "study") is None
    with one_writer(tmp_path / "study"):
        assert f"process {os.getpid()} on" in (tmp_path / "study" / ".driver").read_text()
    assert (tmp_path / "study" / ".driver").read_text() == ""


def test_a_process_that_the_driver_started_does_not_hold_the_study(tmp_path: Path) -> None:
    with one_writer(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        with one_writer(tmp_path):
            pass
        child.kill()


def test_where_locks_are_unknown_nobody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with one_writer(tmp_path), one_writer(tmp_path):
        pass


@pytest.mark.parametrize("removed", ["the file", "the folder"])
def test_a_writer_owns_the_file_that_stands_in_the_folder_though_one_before_it_removed_another(
    tmp_path: Path, removed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lock = tmp_path / "study", fcntl.flock
    opened = list[int]()

    def lock_late(file: IO[bytes], how: int) -> None:
        if not opened:
            (folder / ".driver").unlink()
            if removed == "the folder":
                folder.rmdir()
        opened.append(os.fstat(file.fileno()).st_nlink)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with one_writer(folder):
        monkeypatch.undo()
        assert opened == [0, 1]
        assert str(locked_by(folder)).startswith(f"searched by process {os.getpid()} on ")
        with pytest.raises(StudyError, match="is being searched by process"), one_writer(folder):
            pass


def test_a_folder_that_takes_no_file_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(
            DiskError, match=r"file/run: could not be written: Not a directory; is the folder yours"
        ),
        one_writer(tmp_path / "file" / "run"),
    ):
        pass
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".driver").symlink_to("/dev/full")  # it can be locked, and takes no byte
    with (
        pytest.raises(DiskError, match=r"full: could not be written: "),
        one_writer(tmp_path / "full"),
    ):
        pass
