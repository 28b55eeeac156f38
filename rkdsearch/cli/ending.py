"""The end of a command: its last line and its exit code."""

import os
import sys
from typing import NoReturn

from rkdsearch.errors import RkdError, Terminated


def exit_code(error: BaseException) -> int:
    """Exit code of a command that this error ended.

    1: a bug of ours. 2: the user must change something. 130: Ctrl-C. 143: SIGTERM.
    """
    if isinstance(error, KeyboardInterrupt):
        return 143 if isinstance(error, Terminated) else 130
    return 2 if isinstance(error, RkdError) else 1


def end_now(error: BaseException) -> NoReturn:
    """End the process from any thread, with the error's sentence: the main thread is stuck."""
    if isinstance(error, RkdError):
        print(error, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code(error))
