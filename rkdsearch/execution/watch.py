"""The end of a search that cannot end by itself: Ray is gone, or does not let go of the driver.

A call into Ray waits in C++ where no exception reaches it, and Ray ends the whole process, without
a word of ours, a minute after its head was lost. So a thread watches, and the process is left from
there: every finished epoch has its row already.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import ray

from rkdsearch.errors import LostHeadError
from rkdsearch.execution.interruption import Interruption, Signal

LOOK_EVERY_SECONDS = 1.0
# A head that does not answer for so long is lost; Ray itself gives up after 60.
HEAD_SECONDS = 20.0
# What a search may need to end in order after its reason to end, with Ray and without. Slurm and
# Kubernetes kill after 30.
GRACE_SECONDS, GRACE_WITHOUT_RAY_SECONDS = 20.0, 5.0


class Watch:
    """Looks at Ray's head and at the reason to end, from `begin` on."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption
        self._head: tuple[str, int] | None = None
        self._answered = self._looked = time.monotonic()
        self._reason_since: float | None = None

    def begin(self) -> None:
        """Watch the head that this process is connected to."""
        host, _, port = str(ray.get_runtime_context().gcs_address).rpartition(":")
        self._answered = time.monotonic()
        self._head = host.strip("[]"), int(port)

    def end(self) -> None:
        """Watch no more: the search has ended in order."""
        self._head = None

    def look(self) -> bool:
        """Look once. True where there is a reason to end, and the search had its time to do so."""
        before, self._looked = self._looked, time.monotonic()
        if self._head is None:
            return False
        # a process that was paused itself, or a machine that slept, has not heard an answer either
        paused = self._looked - before > HEAD_SECONDS / 2
        if paused or _answers(self._head):
            self._answered = time.monotonic()
        silent = time.monotonic() - self._answered
        if silent > HEAD_SECONDS and self._interruption.reason is None:
            host, port = self._head
            self._interruption.reason = LostHeadError(
                f"Ray's head at {host}:{port} has not answered for {silent:.0f} s; start another"
                " where it was a cluster's"
            )
        if self._interruption.reason is None:
            return False
        self._reason_since = self._reason_since or time.monotonic()
        gone = silent > GRACE_WITHOUT_RAY_SECONDS
        grace = GRACE_WITHOUT_RAY_SECONDS if gone else GRACE_SECONDS
        return time.monotonic() - self._reason_since > grace


@contextmanager
def watched(
    interruption: Interruption,
    close: Callable[[], None],
    leave: Callable[[BaseException], NoReturn] | None,
) -> Iterator[Watch]:
    """Call `close`, and `leave` with the reason, where the block does not end in time.

    Both are called in another thread; `leave` must end the process. Where it is None, nothing is
    watched.
    """
    watch, over = Watch(interruption), threading.Event()

    def run(leave: Callable[[BaseException], NoReturn]) -> None:
        while not over.wait(LOOK_EVERY_SECONDS):
            if watch.look():
                reason = interruption.reason
                assert reason is not None, "nothing else is overdue"
                close()
                leave(reason.interrupt if isinstance(reason, Signal) else reason)

    if leave is not None:
        threading.Thread(target=run, args=(leave,), name="watch", daemon=True).start()
    try:
        yield watch
    finally:
        over.set()


def _answers(head: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(head, timeout=3):
            return True
    except OSError:
        return False
