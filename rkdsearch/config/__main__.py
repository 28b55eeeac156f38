"""`python -m rkdsearch.config docs/run.md` writes the page of a run's fields."""

import sys
from pathlib import Path

from rkdsearch.config.describe import page

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
