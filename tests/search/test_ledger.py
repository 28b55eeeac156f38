"""What a ledger keeps from change to change, against what all of its trials say."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from rkdsearch.results.states import Origin, Status
from rkdsearch.search.history import SamplerHistory, select_history
from rkdsearch.search.shares import Shares
from rkdsearch.search.study import Study
from tests.search.files import AheadWorker, FakeWorker, load_space, run

pytestmark = pytest.mark.usefixtures("unhurried")


def look(study: Study) -> None:
    """Check every view against a look through all trials."""
    ledger, trials = study.ledger, list(study.trials.values())
    assert {t.trial_id for t in ledger.executing} == {t.trial_id for t in trials if t.executing}
    resting = [t for t in trials if t.status == Status.RUNNING and not t.executing]
    assert ledger.interrupted is min(resting, key=lambda t: t.segment_began, default=None)
    configurations = [t for t in trials if t.origin != Origin.REPLICATE]
    assert ledger.searching == any(t.status == Status.RUNNING for t in configurations)
    assert ledger.device_seconds == sum(t.device_seconds for t in trials)
    asked, group = ledger.asked, Shares(study.space).group
    assert asked.fingerprints == {t.config.fingerprint() for t in configurations}
    taken = {t.ordinal for t in configurations}
    assert asked.free_ordinal == next(n for n in itertools.count() if n not in taken)
    assert asked.groups == Counter(
        group(t.config) for t in configurations if t.origin == Origin.SEARCH
    )
    searched = [t for t in configurations if t.origin == Origin.SEARCH]
    assert asked.near == [t.notes.get("belief", "") for t in searched]
    baselines = [t for t in configurations if t.origin == Origin.BASELINE]
    assert asked.baseline_trials == baselines
    fresh = SamplerHistory(study.space)
    refuted = study._beliefs.refuted(baselines)
    for trial in trials:
        fresh.note(trial, refuted=trial.trial_id in refuted)
    assert study.observations() == fresh.observations()


@pytest.mark.parametrize("kind", [FakeWorker, AheadWorker])
def test_what_is_kept_is_what_all_trials_say_after_every_step_and_a_resume(
    tmp_path: Path, kind: type[FakeWorker]
) -> None:
    space = load_space(
        tmp_path,
        replicates={"seeds": 2, "contenders": 2},
        scheduler={"reduction": 2},
        sampler={"startup": 3, "history": 5, "minimum_per": {"method.name": 1}},
    )
    first = Study(tmp_path / "s", space, 6, {})
    looks = []

    def moment(_: str) -> None:
        looks.append(len(first.trials))
        look(first)

    kind(moment).drive(first)
    assert len(looks) > 30
    again = Study(tmp_path / "s", space, 8, {})
    again.reconcile()
    look(again)
    FakeWorker().drive(again)
    look(again)


def test_the_history_of_many_trials_is_the_longest_and_the_newest(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, scheduler={"reduction": 2}), trials=12)
    everything = study.observations()
    assert len({o.rungs_short for o in everything}) == 3
    for limit in (1, 2, 3, 5, 8, 11):
        short = load_space(tmp_path / "short", sampler={"history": limit})
        history = SamplerHistory(short)
        for trial in reversed(study.trials.values()):
            history.note(trial)
        assert history.observations() == select_history(everything, limit)
