"""`python -m rkdsearch` is `rkdsearch`."""

from rkdsearch.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
