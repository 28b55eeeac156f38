"""Reasons to end a search early: Ctrl-C, a full disk, an error of the study.

A reason is noted where it appears and raised between two steps of Tune's event loop. Raised inside
a step, Tune may lose it or replace it.
"""

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rkdsearch.errors import DiskError, RkdError


class CtrlC(Exception):  # noqa: N818 - nothing went wrong
    """Ctrl-C in a form that Tune can handle.

    A KeyboardInterrupt would leave Tune's placement groups behind, and the next search of this
    process would wait for ever.
    """


class Interruption:
    """The first reason to end the search of the study in `folder`; None so far."""

    def __init__(self, folder: Path) -> None:
        self.reason: Exception | None = None
        self._folder = folder

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the RkdError or OSError of a block that may write to the study's folder."""
        try:
            yield
        except RkdError as error:
            self.reason = self.reason or error
        except OSError as error:
            self.reason = self.reason or DiskError.at(self._folder, error)

    @contextmanager
    def noting_ctrl_c(self) -> Iterator[None]:
        """Note the first Ctrl-C; a second one raises KeyboardInterrupt at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(_number: int, _frame: object) -> None:
            self.reason = CtrlC()
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def cause_of(self, error: Exception) -> Exception:
        """The noted reason for the end of Tune's loop; `error` itself where none was noted."""
        # Tune writes to the study's folder too.
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.reason = self.reason or DiskError.at(self._folder, error)
        return self.reason or error
