from pathlib import Path

import pytest

from rkdsearch.results.cells import CLEAN, ROBUST, parse, records
from tests.results.rows import study, trial


def test_missing_values_become_none(tmp_path: Path) -> None:
    (row,) = records(study(tmp_path, trial("a", None, 0.5)).trials)
    assert (
        row[CLEAN],
        row[ROBUST],
        row["error"],
        row["metric.best_epoch"],
        row["run.started"],
    ) == (
        None,
        0.5,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "3", float("nan")])
def test_text_that_is_no_json_object_says_nothing(text: object) -> None:
    assert parse(text) == {}
