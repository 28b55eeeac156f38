"""The program's entry point and its exit codes.

0: done. 1: a bug of ours, with its traceback. 2: the user must change something, one sentence.
130: interrupted.
"""

import sys

from rkdsearch.cli import app
from rkdsearch.errors import RkdError


def main() -> None:
    """Run one command."""
    from cyclopts import CycloptsError

    try:
        app(exit_on_error=False, result_action="return_value")
    except CycloptsError:
        sys.exit(2)  # Cyclopts has printed its message
    except RkdError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
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
        sys.exit(130)
