import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from rkdsearch import config as configs
from rkdsearch import methods
from rkdsearch.methods import Method
from rkdsearch.results.store import Store
from rkdsearch.training import config_rows

TEACHER = {"path": "teacher.safetensors"}
PYTHON = {"string": str, "int": int, "float": (int, float), "bool": bool}

# What cannot be derived from a field's type and default, and what else a run needs for it.
VALUES: dict[str, Any] = {
    "teachers.robust.sha256": "ab" * 32,
    "teachers.natural.sha256": "cd" * 32,
    "attack.relative_step_size": 0.5,
    "attack.objective": "label",
    "data.name": "mnist",
    "data.extra_fraction": 0.3,
    "data.image_size": [8, 4],
    "teachers.robust.ignore": ["head."],
    "teachers.natural.ignore": ["head."],
    "schedule.milestones": [0.2, 0.8],
    "student.depth": 16,
    "student.mean": [0.5],
    "student.name": "mlp",
    "student.std": [0.5],
}
NEEDS: dict[str, dict[str, Any]] = {
    **{
        f"data.{name}": {"data.name": "folder:images"}
        for name in (
            "image_size",
            "resize",
            "channels",
            "memory_gib",
            "cache",
            "test_split",
        )
    },
    **{
        f"data.{name}": {"data.name": "parquet:images"} for name in ("image_column", "label_column")
    },
    **{f"data.{name}": {"data.name": "cifar10"} for name in ("root", "download")},
    "data.extra": {"data.extra_fraction": 0.3},
    "data.extra_fraction": {"data.extra": "more.npz"},
    "student.depth": {"student.name": "wide_resnet"},
    "student.mean": {"student.std": [0.5]},
    "student.std": {"student.mean": [0.5]},
    "attack.norm": {"attack.eps": 0.5},
    "validation.attack.norm": {"validation.attack.eps": 0.5},
    "validation.attack.relative_step_size": {"validation.attack.objective": "cross_entropy"},
}


@pytest.mark.parametrize("name", methods.names())
def test_a_run_fills_known_columns_with_values_of_their_type(name: str) -> None:
    config = configs.build(
        {
            "method.name": name,
            "teachers": {"robust": TEACHER, "natural": {**TEACHER, "trained_on": "train"}},
        }
    )
    known = {column.name: column.type for column in config_rows.columns()}
    row = config_rows.row(config)
    assert (
        row["config.method.name"],
        row["config.optimizer.lr"],
        row["config.schedule.milestones"],
    ) == (name, 0.1, "[0.5, 0.75]")
    assert row["config.teachers.natural.trained_on"] == "train"
    for field, value in row.items():
        assert isinstance(value, PYTHON[known[field]]), f"{field} is {known[field]}, got {value!r}"


def test_a_recipe_is_told_by_its_hash_and_not_by_columns() -> None:
    config = configs.build(
        {"method.name": "rslad", "teachers": {"robust": {"recipe": {"method": {"name": "pgd_at"}}}}}
    )
    assert configs.build(config.to_dict()) == config
    assert not [name for name in config_rows.row(config) if "recipe" in name]
    assert not [column.name for column in config_rows.columns() if "recipe" in column.name]


def leaves(
    section: type[BaseModel] = configs.TrainConfig, prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, type and default of every field, but a method's and a recipe's."""
    for name, field in section.model_fields.items():
        kind = next(m for m in configs.members(field.annotation) if m is not type(None))
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            yield prefix + name, kind, field.default
        elif not issubclass(kind, Method | configs.Recipe):
            yield from leaves(kind, f"{prefix}{name}.")


def another(kind: Any, default: Any) -> Any:
    """A value of this type that is not the default, and is legal for most fields."""
    if get_origin(kind) is Literal:
        return next(value for value in get_args(kind) if value != default)
    return {bool: not default, int: (default or 0) + 1, float: (default or 0.5) / 2, str: "text"}[
        kind
    ]


@pytest.mark.parametrize(
    ("name", "kind", "default"), list(leaves()), ids=[name for name, *_ in leaves()]
)
def test_any_field_at_another_value_is_written_and_read_back(
    tmp_path: Path, name: str, kind: Any, default: Any
) -> None:
    role, _, inner = name.partition(".network.")
    field = f"student.{inner}" if inner else name
    value = VALUES[field] if field in VALUES else another(kind, default)
    needs = {
        key.replace("student.", f"{role}.network.") if inner else key: needed
        for key, needed in NEEDS.get(field, {}).items()
    }
    config = configs.build({"method.name": "pgd_at", **needs, name: value})
    store = Store(tmp_path, config_rows.columns())
    store.write_trial({"trial_id": "a", **config_rows.row(config)})
    (written,) = store.trials()[f"config.{name}"]
    assert written == (json.dumps(value) if isinstance(value, list) else value) != default
