"""`python -m rkdsearch.methods docs/methods.md` writes the page of all methods."""

import sys
from pathlib import Path

from rkdsearch.methods.describe import page

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
