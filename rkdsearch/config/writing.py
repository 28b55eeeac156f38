"""A config as YAML text, which `load` reads as the same run."""

from typing import Any

import yaml

from rkdsearch.config.run import TrainConfig


def written(config: TrainConfig) -> str:
    """YAML of every field that is not null, defaults too: later versions may change a default."""
    return yaml.safe_dump(
        _without_nulls(config.to_dict()), sort_keys=False, default_flow_style=None, width=120
    )


def _without_nulls(tree: dict[str, Any]) -> dict[str, Any]:
    """The same tree without null leaves: null is the default of every field that may be null."""
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in tree.items()
        if value is not None
    }
