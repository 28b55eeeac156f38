"""Exit codes: 0 done, 2 the user must change something (one sentence, no traceback), 1 our bug (with its traceback), 130 interrupted."""

import sys

from rkdsearch.cli import app
from rkdsearch.errors import RkdError


def main() -> None:
    """Run one command."""
    from cyclopts import CycloptsError

    try:
        app(exit_on_error=False, result_action="return_value")
    except CycloptsError:
        sys.exit(2)  # its message is printed already
    except RkdError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if sys.argv[1:2] in (["train"], ["teacher"], ["evaluate"]):  # `tune` has said what to type
            print(
                "interrupted; what is finished (epochs, examined networks) is kept: the same"
                " command goes on from there",
                file=sys.stderr,
            )
        sys.exit(130)
