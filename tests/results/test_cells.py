from pathlib import Path

import pandas as pd
import pytest

from rkdsearch.results.cells import CLEAN, ROBUST, parse, radius_text, records
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


def test_a_frame_of_objects_alone_is_read_and_stays_as_it_is() -> None:
    frame = pd.DataFrame({"a": [None, "x"]}, dtype=object)
    assert records(frame) == [{"a": None}, {"a": "x"}]
    assert records(frame.iloc[:0]) == []


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"),
        (0.0313725490196, "8/255"),
        (128 / 255, "128/255"),
        (0.15, "0.15"),
        (0.5, "0.5"),
        (1.0, "1"),
        (2.0, "2"),
        (0.0, "0"),
    ],
)
def test_a_radius_is_written_as_papers_write_it(eps: float, text: str) -> None:
    assert radius_text(eps) == text
