"""Configurations that a study has asked for so far, as its next proposal must know them.

They are noted trial by trial, not gathered from all trials at every proposal.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from rkdsearch.config import TrainConfig
from rkdsearch.results.beliefs import NOTE
from rkdsearch.results.states import Origin
from rkdsearch.search import longer, queue
from rkdsearch.search.beliefs import NOWHERE
from rkdsearch.search.shares import Group
from rkdsearch.search.trial import Trial


class Asked:
    """Configurations that were asked for; `group` names the choices of one for which shares count.

    Replicates are left out.
    """

    def __init__(self, group: Callable[[TrainConfig], Group]) -> None:
        self.fingerprints: set[str] = set()
        self.baselines: set[str] = set()  # fingerprints of these alone
        self.baseline_trials: list[Trial] = []
        self.enqueued: set[str] = set()  # names of their files
        self.beside = 0  # enqueued ones and longer repetitions, which `--trials` does not count
        # of the searched ones, enqueued ones apart: they are no proposals
        self.groups: Counter[Group] = Counter()
        self._group = group
        self._searched: list[Trial] = []
        self._ordinals: set[int] = set()
        self._free = 0

    def add(self, trial: Trial) -> None:
        """Add a trial."""
        if trial.origin == Origin.REPLICATE:
            self.take(trial.ordinal)  # also where the row of its configuration is damaged
            return
        fingerprint = trial.config.fingerprint()
        self.fingerprints.add(fingerprint)
        if trial.origin == Origin.BASELINE:
            self.baselines.add(fingerprint)
            self.baseline_trials.append(trial)
        else:
            if queue.NOTE not in trial.notes:
                self.groups[self._group(trial.config)] += 1
            self._searched.append(trial)
        if queue.NOTE in trial.notes:
            self.enqueued.add(str(trial.notes[queue.NOTE]))
        self.beside += bool({queue.NOTE, longer.REPEATS} & trial.notes.keys())
        self.take(trial.ordinal)

    @property
    def near(self) -> list[str]:
        """A name for each searched trial: of the baseline that it was made near, or `NOWHERE`."""
        return [trial.notes.get(NOTE, NOWHERE) for trial in self._searched]

    def add_unreadable(self, ordinal: int, notes: Mapping[str, Any]) -> None:
        """Note a row that this space cannot read: its ordinal is taken, its file was enqueued."""
        if queue.NOTE in notes:
            self.enqueued.add(str(notes[queue.NOTE]))
        self.take(ordinal)

    def take(self, ordinal: int) -> None:
        """Note that an ordinal is taken."""
        self._ordinals.add(ordinal)
        while self._free in self._ordinals:
            self._free += 1

    @property
    def free_ordinal(self) -> int:
        """The first ordinal without a configuration: a damaged row leaves a gap."""
        return self._free
