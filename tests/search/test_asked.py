from pathlib import Path

from rkdsearch.results.states import Origin
from rkdsearch.search.asked import Asked
from tests.search.files import load_space, run


def test_a_gap_is_the_next_ordinal_and_replicates_count_for_nothing(tmp_path: Path) -> None:
    space = load_space(tmp_path, replicates={"seeds": 1, "contenders": 2})
    trials = list(run(tmp_path, space, trials=4).trials.values())
    assert sum(t.origin == Origin.REPLICATE for t in trials) == 1
    asked = Asked(lambda config: (("width", config.attack.steps),))
    for trial in trials:
        if trial.ordinal != 1:
            asked.add(trial)
    assert asked.free_ordinal == 1
    assert len(asked.fingerprints) == 3
    assert len(asked.baselines) == 1
    assert asked.groups == {(("width", 2),): 2}
    asked.take(1)
    assert asked.free_ordinal == 4
