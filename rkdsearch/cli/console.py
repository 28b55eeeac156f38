"""The terminal: one line at a time, and log records about long work as lines."""

import logging

from rich.console import Console
from typing_extensions import override

console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print one line."""
    console.print(harmless(text), markup=False, emoji=False)


def harmless(text: str) -> str:
    """The text without control characters: a label of a stranger's study may hold them."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


class _PaceHandler(logging.Handler):
    @override
    def emit(self, record: logging.LogRecord) -> None:
        from rkdsearch.training.run import is_first_process

        if is_first_process():
            say(record.getMessage())


_pace_handler = _PaceHandler()  # one for all calls: a logger does not add the same handler twice


def show_pace() -> None:
    """Print the progress of long work in this process, which `rkdsearch.pace` logs."""
    logger = logging.getLogger("rkdsearch.pace")
    logger.setLevel(logging.INFO)
    logger.addHandler(_pace_handler)
