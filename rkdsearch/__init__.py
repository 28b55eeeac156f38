"""rkdsearch finds small networks that are accurate and robust.

The public names are imported on first use, so that `import rkdsearch` costs neither torch nor Ray.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkdsearch.accuracy import evaluate_accuracy as evaluate_accuracy
    from rkdsearch.config import TrainConfig as TrainConfig
    from rkdsearch.config import build, load
    from rkdsearch.errors import RkdError as RkdError
    from rkdsearch.methods import Loss as Loss
    from rkdsearch.methods import Method as Method
    from rkdsearch.methods import Step as Step
    from rkdsearch.results.store import Store as Store
    from rkdsearch.space.space import SearchSpace as SearchSpace
    from rkdsearch.training.epoch import EpochResult as EpochResult
    from rkdsearch.training.trainer import Trainer as Trainer

    build_config, load_config = build, load

_WHERE = {
    "EpochResult": "training.epoch",
    "Loss": "methods",
    "Method": "methods",
    "RkdError": "errors",
    "SearchSpace": "space.space",
    "Step": "methods",
    "Store": "results.store",
    "TrainConfig": "config",
    "Trainer": "training.trainer",
    "build_config": "config:build",
    "evaluate_accuracy": "accuracy",
    "load_config": "config:load",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'rkdsearch' has no attribute '{name}'")
    module, _, renamed = _WHERE[name].partition(":")
    return getattr(importlib.import_module(f"rkdsearch.{module}"), renamed or name)
