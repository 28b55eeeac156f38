from pathlib import Path
from types import ModuleType

import pytest

from rkdsearch.execution import messages
from tests.analysis.scripts import script
from tests.execution.orders import order_of


@pytest.fixture(scope="module")
def latency() -> ModuleType:
    return script("latency")


def test_what_a_driver_spends_on_a_trial_is_measured_part_by_part(latency: ModuleType) -> None:
    found = latency._measured(20)
    assert len(found) == 7
    assert all(len(milliseconds) >= 7 and min(milliseconds) >= 0 for milliseconds in found.values())
    assert max(found["proposal, tpe"]) > 0


def test_a_process_says_how_long_it_waited_for_its_next_trial_and_only_then(
    latency: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def taken(trial_id: str) -> dict[str, object]:
        return messages.packed(order_of(tmp_path, trial_id=trial_id))

    def facts() -> dict[str, object]:
        return dict(messages.unpacked(process.step()).facts)

    now = [100.0]
    monkeypatch.setattr(latency.time, "monotonic", lambda: now[0])
    process = latency.Instant.__new__(latency.Instant)  # without Ray around it
    process.setup(taken("t00000"))
    said = [facts()]
    now[0] = 101.0
    said.append(facts())
    now[0] = 101.25
    assert process.reset_config(taken("t00001"))
    said += [facts(), facts()]
    assert said == [{}, {}, {"waited": 0.25}, {}]
