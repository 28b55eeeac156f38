"""The benchmarks are scripts and no package.

They are imported from their folder, by their bare names.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parents[2] / "analysis" / "benchmarks"


def script(name: str) -> ModuleType:
    """`analysis/benchmarks/<name>.py`."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))
