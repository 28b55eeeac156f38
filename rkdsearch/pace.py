"""Progress of long work, logged now and then.

The command line listens to the logger `rkdsearch.pace`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_SECONDS = 15.0
SILENT_SECONDS = 300.0  # longer than that without a sign of life is worth a sentence

_log = logging.getLogger(__name__)


class Pace:
    """Logs progress at most every 15 seconds: `epoch 1: 57 of 390 batches, about 54 min left`.

    `what` is the sentence, with `{}` where the count stands; `total` is the number of parts.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._begun = self._said = time.monotonic()

    def at(self, done: int) -> None:
        """Report that `done` parts of the total are done."""
        now = time.monotonic()
        if now - self._said >= EVERY_SECONDS and 0 < done < self._total:
            self._said = now
            left = duration((now - self._begun) / done * (self._total - done))
            _log.info("%s, about %s left", self._what.format(f"{done:,} of {self._total:,}"), left)


@contextmanager
def silence_told(life: Callable[[], object], sentence: Callable[[], str]) -> Iterator[None]:
    """Log a sentence where `life` stays the same for five minutes in the block, then for ten, ...

    The sentence is given how long, as `5 min 00 s`, where it has `{}`. Another thread looks: the
    one of the block may be what is stuck.
    """
    over = threading.Event()

    def watch() -> None:
        known, since, patience = life(), time.monotonic(), SILENT_SECONDS
        while not over.wait(min(EVERY_SECONDS, SILENT_SECONDS / 10)):
            now = life()
            if now != known:
                known, since, patience = now, time.monotonic(), SILENT_SECONDS
            elif (silent := time.monotonic() - since) >= patience:
                patience *= 2
                _log.warning("%s", sentence().format(duration(silent)))

    watcher = threading.Thread(target=watch, name="silence", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()  # a daemon that outlives the interpreter may abort the process


def number_of(count: int, thing: str) -> str:
    """A count with its noun: `1 trial`, `2 trials`, `3 batches`."""
    plural = "" if count == 1 else "es" if thing.endswith(("s", "ch")) else "s"
    return f"{count} {thing}{plural}"


def duration(seconds: float | None) -> str:
    """Seconds as text, in two units at most: `45 s`, `2 min 05 s`, `3 h 20 min`."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min {rest:02d} s"
        if minutes
        else f"{rest} s"
    )
