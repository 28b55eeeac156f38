import logging

import pytest

from rkdsearch import pace
from rkdsearch.pace import Pace, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.4, "0 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7384, "2 h 03 min")],
)
def test_durations_have_two_units_at_most(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_long_work_says_every_fifteen_seconds_how_far_it_is_and_how_long_it_will_take(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(pace.time, "monotonic", lambda: now)
    caplog.set_level(logging.INFO, "rkdsearch.pace")
    decoding = Pace("decoding images: {}", 50_000)
    for now, done in (  # noqa: B007 - the clock reads it
        (114.0, 1_000),
        (116.0, 2_000),
        (130.0, 3_000),
        (132.0, 16_000),
        (200.0, 50_000),
    ):
        decoding.at(done)
    assert [record.getMessage() for record in caplog.records] == [
        "decoding images: 2,000 of 50,000, about 6 min 24 s left",
        "decoding images: 16,000 of 50,000, about 1 min 08 s left",
    ]
