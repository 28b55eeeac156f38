import json
from types import ModuleType

import pytest

from tests.analysis.scripts import script


@pytest.fixture(scope="module")
def latency() -> ModuleType:
    return script("latency")


def test_what_a_driver_spends_on_a_trial_is_measured_part_by_part(latency: ModuleType) -> None:
    found = latency._measured(20)
    assert len(found) == 7
    assert all(len(milliseconds) >= 7 and min(milliseconds) >= 0 for milliseconds in found.values())
    assert max(found["proposal, tpe"]) > 0


def test_a_process_says_how_long_it_waited_for_its_next_trial_and_only_then(
    latency: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(trial_id: str) -> dict[str, str]:
        return {
            "assignment": json.dumps({"trial_id": trial_id, "config": {"training": {"epochs": 2}}})
        }

    now = [100.0]
    monkeypatch.setattr(latency.time, "monotonic", lambda: now[0])
    process = latency.Instant.__new__(latency.Instant)  # without Ray around it
    process.setup(taken("t00000"))
    said = [process.step()["facts"]]
    now[0] = 101.0
    said.append(process.step()["facts"])
    now[0] = 101.25
    assert process.reset_config(taken("t00001"))
    said += [process.step()["facts"], process.step()["facts"]]
    assert [json.loads(facts) for facts in said] == [{}, {}, {"waited": 0.25}, {}]
