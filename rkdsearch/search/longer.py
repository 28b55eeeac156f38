"""A longer full run: a study whose last rung has moved up.

An epoch's learning rate depends on the length of its run, so a run of 54 epochs is no part of one
of 108. Trials of a shorter full run keep their rows as they are, are compared at no rung, and are
not trained on. The space's baselines and the shorter runs' contenders are trained again.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import StudyError
from rkdsearch.results.cells import FULL_EPOCHS
from rkdsearch.results.states import Origin, Status
from rkdsearch.results.store import Store
from rkdsearch.search import front, queue
from rkdsearch.search.feasibility import Feasibility
from rkdsearch.search.trial import Trial
from rkdsearch.space.space import SearchSpace

REPEATS = "again"  # note of a trial: the trial of a shorter full run that it repeats


def ladders(known: Mapping[str, Any], space: SearchSpace) -> list[list[dict[str, Any]]]:
    """The ladders of shorter full runs that a study has had, for `study.json`, shortest first.

    `known` is the description of the study so far.
    """
    written = known.get("earlier_ladders")
    found: list[list[dict[str, Any]]] = list(written) if isinstance(written, list) else []
    last: list[dict[str, Any]] = known.get("ladder") or []
    if last and last[-1]["epochs"] < space.epochs:
        found.append(last)
    return found


@dataclass(frozen=True)
class Lengths:
    """Full lengths of a study, the present one last: the space that made the trials of each."""

    folder: Path
    by_epochs: Mapping[int, tuple[SearchSpace, Feasibility]]

    @staticmethod
    def of(folder: Path, space: SearchSpace, teachers: Mapping[str, Any]) -> "Lengths":
        """The lengths of the study in the folder, that of `space` last."""
        found, described = {}, Store(folder).description()
        for rungs in ladders(described, space):
            ladder = tuple(Fidelity(**rung) for rung in rungs)
            earlier = replace(space, ladder=ladder)
            found[earlier.epochs] = earlier, Feasibility(earlier, teachers)
        found[space.epochs] = space, Feasibility(space, teachers)
        return Lengths(folder, found)

    @property
    def space(self) -> SearchSpace:
        """The space as it is now."""
        return list(self.by_epochs.values())[-1][0]

    @property
    def feasibility(self) -> Feasibility:
        """Feasibility in the space as it is now."""
        return list(self.by_epochs.values())[-1][1]

    def current(self, trial: Trial) -> bool:
        """True where the trial's full run has the length that the space has now."""
        return trial.config.training.epochs == self.space.epochs

    def of_row(self, row: Mapping[str, Any]) -> tuple[SearchSpace, Feasibility]:
        """The space of a row's trial. Raises StudyError where the study has had no such length."""
        try:
            return self.by_epochs[int(row[FULL_EPOCHS])]
        except KeyError:
            raise StudyError(
                f"{self.folder}: {row['trial_id']} has a full run of {row[FULL_EPOCHS]} epochs, and"
                f" study.json knows {', '.join(map(str, self.by_epochs))}; put a whole copy of"
                " study.json back, or give this search a folder of its own with --study"
            ) from None

    def labels(self) -> dict[str, str]:
        """The baselines' labels by the fingerprints of their runs of every length."""
        return {
            feasibility.config(baseline.overrides, baseline.label).fingerprint(): baseline.label
            for space, feasibility in self.by_epochs.values()
            for baseline in space.baselines
        }

    def to_repeat(self, trials: Collection[Trial]) -> list[Trial]:
        """Trials of the shorter runs whose configurations are worth a longer one.

        These are the baselines of the space, enqueued ones that were interrupted, then the
        contenders of the longest of these lengths that has any. Each configuration has its latest
        trial.
        """
        labels, found = self.labels(), dict[str, Trial]()
        baselines = [t for t in trials if t.origin == Origin.BASELINE and not self.current(t)]
        for trial in baselines:
            if trial.config.fingerprint() in labels:
                found[labels[trial.config.fingerprint()]] = trial
        asked_for = [t for t in trials if _enqueued_and_interrupted(t) and not self.current(t)]
        for space, _ in list(self.by_epochs.values())[-2::-1]:
            contenders = front.contenders(trials, space)
            if contenders:
                searched = [t for t in contenders if t.origin == Origin.SEARCH]
                return [*found.values(), *asked_for, *searched]
        return [*found.values(), *asked_for]


def _enqueued_and_interrupted(trial: Trial) -> bool:
    """True where nobody decided that a trial which its user asked for ends."""
    decided = bool(trial.decisions) and not trial.decisions[-1].trains_on
    return queue.NOTE in trial.notes and trial.status == Status.STOPPED and not decided
