"""Common output of benchmarks whose sides take turns.

The machine, and the spread of the measurements.
"""

import os
import platform
import statistics
from collections.abc import Sequence

import torch


def head() -> str:
    """Versions, hardware, and how busy the machine was."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"python {platform.python_version()}, torch {torch.__version__}, cpu, 1 thread,"
        f" {platform.machine()}; load {load}"
    )


def spread(values: Sequence[float], decimals: int) -> str:
    """Median [min, max]."""
    low, middle, high = (
        f"{found:,.{decimals}f}" for found in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} [{low}, {high}]"
