import logging

import pytest

from rkdsearch import pace
from rkdsearch.pace import Pace, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99.0, "99 s"), (100.0, "2 min"), (5_900.0, "98 min"), (12_000.0, "3 h 20 min"), (370_800.0, "4 d 7 h")],
)
def test_a_duration_is_in_the_unit_in_which_one_would_say_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_long_work_says_every_fifteen_seconds_how_far_it_is_and_how_long_it_will_take(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(pace.time, "monotonic", lambda: now)
    caplog.set_level(logging.INFO, "rkdsearch.pace")
    decoding = Pace("decoding images: {}", 50_000)
    for now, done in ((114.0, 1_000), (116.0, 2_000), (130.0, 3_000), (132.0, 16_000), (200.0, 50_000)):  # noqa: B007 - the clock reads it
        decoding.at(done)
    assert [record.getMessage() for record in caplog.records] == [
        "decoding images: 2,000 of 50,000, about 6 min left",
        "decoding images: 16,000 of 50,000, about 68 s left",
    ]
