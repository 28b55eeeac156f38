"""Large files that some tests read where a developer has them: `shared/`, beside the checkout. Elsewhere: a skip, with its reason."""

from pathlib import Path

import pytest


def shared(name: str) -> Path:
    """The file or folder of this name inside `shared/`, or a skipped test."""
    path = Path(__file__).parents[2] / "shared" / name
    if not path.exists():
        pytest.skip(f"needs shared/{name} beside the checkout, and there is none")
    return path
