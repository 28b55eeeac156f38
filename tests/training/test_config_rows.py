import pytest

from rkdsearch import config as configs
from rkdsearch import methods
from rkdsearch.training import config_rows

TEACHER = {"path": "teacher.safetensors"}
PYTHON = {"string": str, "int": int, "float": (int, float), "bool": bool}


@pytest.mark.parametrize("name", methods.names())
def test_a_run_fills_known_columns_with_values_of_their_type(name: str) -> None:
    config = configs.build({"method.name": name, "teachers": {"robust": TEACHER, "natural": {**TEACHER, "trained_on": "train"}}})
    known = {column.name: column.type for column in config_rows.columns()}
    row = config_rows.row(config)
    assert (row["config.method.name"], row["config.optimizer.lr"], row["config.schedule.milestones"]) == (name, 0.1, "[0.5, 0.75]")
    assert row["config.teachers.natural.trained_on"] == "train"
    for field, value in row.items():
        assert isinstance(value, PYTHON[known[field]]), f"{field} is {known[field]}, got {value!r}"


def test_a_recipe_is_told_by_its_hash_and_not_by_columns() -> None:
    config = configs.build({"method.name": "rslad", "teachers": {"robust": {"recipe": {"method": {"name": "pgd_at"}}}}})
    assert configs.build(config.to_dict()) == config
    assert not [name for name in config_rows.row(config) if "recipe" in name]
    assert not [column.name for column in config_rows.columns() if "recipe" in column.name]
