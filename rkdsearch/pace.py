"""Progress of long work, logged now and then.

The command line listens to the logger `rkdsearch.pace`.
"""

import logging
import time

EVERY_SECONDS = 15.0

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
