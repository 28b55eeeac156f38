"""The command line: exit code 0 done, 2 the user must change something (one sentence, no traceback), 1 our bug (with its traceback)."""

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
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
