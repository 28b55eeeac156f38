"""Large files in `shared/`, beside the checkout, for tests that need them.

Where they are missing, such a test is skipped, with the reason.
"""

from pathlib import Path

import pytest


def shared(name: str) -> Path:
    """The file or folder of this name inside `shared/`, or a skipped test."""
    path = Path(__file__).parents[2] / "shared" / name
    if not path.exists():
        pytest.skip(f"needs shared/{name} beside the checkout, and there is none")
    return path
