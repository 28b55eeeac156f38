"""The program's entry point and its exit codes.

0: done. 1: a bug of ours, with its traceback. 2: the user must change something, one sentence.
130: interrupted. 143: terminated.
"""

import signal
import sys

from rkdsearch.cli import app
from rkdsearch.cli.ending import exit_code
from rkdsearch.cli.options import repeated
from rkdsearch.errors import RkdError, Terminated


def main() -> None:
    """Run one command."""
    from cyclopts import CycloptsError

    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(list(repeated(sys.argv[1:])), exit_on_error=False, result_action="return_value")
    except CycloptsError:
        sys.exit(2)  # Cyclopts has printed its message
    except RkdError as error:
        from rkdsearch.cli.console import harmless

        print(harmless(str(error)), file=sys.stderr)  # a file of a stranger's may be quoted
        sys.exit(exit_code(error))
    except KeyboardInterrupt as error:
        if sys.argv[1:2] in (
            ["train"],
            ["teacher"],
            ["evaluate"],
        ):  # `tune` prints the command to continue
            print(
                "interrupted; finished epochs and evaluations are kept: repeat the command to"
                " continue",
                file=sys.stderr,
            )
        sys.exit(exit_code(error))


def _terminate(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
    raise Terminated
