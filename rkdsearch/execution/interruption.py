"""Reasons to end a search early: Ctrl-C, SIGTERM, a full disk, an error of the study.

A reason is noted where it appears and raised between two steps of Tune's event loop. Raised inside
a step, Tune may lose it or replace it.
"""

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rkdsearch.errors import DiskError, RkdError, Terminated


class Signal(Exception):  # noqa: N818 - nothing went wrong
    """Ctrl-C or SIGTERM in a form that Tune can handle.

    A KeyboardInterrupt would leave Tune's placement groups behind, and the next search of this
    process would wait for ever.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.interrupt = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


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
    def noting_signals(self) -> Iterator[None]:
        """Note the first Ctrl-C or SIGTERM; a second one ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, _frame: object) -> None:
            self.reason = Signal(number)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def cause_of(self, error: Exception) -> Exception:
        """The noted reason for the end of Tune's loop; `error` itself where none was noted."""
        # Tune writes to the study's folder too.
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.reason = self.reason or DiskError.at(self._folder, error)
        return self.reason or error
