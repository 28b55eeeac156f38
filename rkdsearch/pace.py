"""How far long work has got, said now and then through `logging`: whoever wants to read it listens to the logger `rkdsearch.pace`."""

import logging
import time

EVERY_SECONDS = 15.0

_log = logging.getLogger(__name__)


class Pace:
    """Told how much of `total` is done, says at most every 15 seconds: `epoch 1: 57 of 390 batches, about 54 min left`."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._begun = self._said = time.monotonic()

    def at(self, done: int) -> None:
        """So much is done."""
        now = time.monotonic()
        if now - self._said >= EVERY_SECONDS and 0 < done < self._total:
            self._said = now
            left = duration((now - self._begun) / done * (self._total - done))
            _log.info("%s, about %s left", self._what.format(f"{done:,} of {self._total:,}"), left)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, `4 d 7 h`."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
