from pathlib import Path

import pytest

from rkdsearch.results import tables
from rkdsearch.results.columns import Column


def test_the_page_about_columns_is_in_step_with_the_columns() -> None:
    page = Path(__file__).parents[2] / "docs" / "results.md"
    assert page.read_text(encoding="utf-8") == tables.markdown(), (
        "run the command in the page's second line"
    )


@pytest.mark.parametrize("table", tables.TABLES)
def test_every_column_has_one_name_and_a_meaning(table: str) -> None:
    columns = tables.TABLES[table]
    assert len({column.name for column in columns}) == len(columns)
    assert all(column.meaning for column in columns)
    first = {"subsets": "subset_sha256", "openings": "opening"}
    assert columns[0].name == first.get(table, "trial_id")


def test_config_columns_stand_behind_what_was_searched_and_in_trials_alone() -> None:
    config = Column("config.optimizer.lr", "float", "", "initial learning rate")
    names = [column.name for column in tables.columns("trials", [config])]
    assert names[
        names.index("config.optimizer.lr") - 1 : names.index("config.optimizer.lr") + 2
    ] == [
        tables.CONFIG_GOES_AFTER,
        "config.optimizer.lr",
        "metric.clean_accuracy",
    ]
    assert tables.columns("epochs", [config]) == tables.TABLES["epochs"]
