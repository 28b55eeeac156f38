"""A search in progress: what is trained next, and what follows from each report.

`execution/` drives it over Ray; tests and simulations drive it directly.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rkdsearch.config import TrainConfig
from rkdsearch.errors import Failure, SpaceError
from rkdsearch.provenance import command
from rkdsearch.results.states import Decision, Origin, ProposedBy, Status
from rkdsearch.search import front, longer, queue, race
from rkdsearch.search.assignment import Assignment
from rkdsearch.search.beliefs import Beliefs, number_of
from rkdsearch.search.decisions import Decisions
from rkdsearch.search.history import SamplerHistory
from rkdsearch.search.journal import Journal
from rkdsearch.search.ledger import Ledger
from rkdsearch.search.longer import Lengths
from rkdsearch.search.queue import Enqueued
from rkdsearch.search.resume import reconcile
from rkdsearch.search.sampler import MODEL_ATTEMPTS, Observation, Proposal
from rkdsearch.search.scheduler import Scheduler
from rkdsearch.search.shares import Owed, Shares
from rkdsearch.search.stored_trials import checkpoint_history
from rkdsearch.search.trial import Trial, segments_of, trial_id_of
from rkdsearch.space.baselines import Baseline
from rkdsearch.space.space import SearchSpace
from rkdsearch.training.epoch import EpochResult


class Study:
    """A search over the configurations of `space`, kept in `folder`.

    It asks for `trials` configurations; where that is None, for new ones until `device_seconds` are
    spent. `teachers` are overrides that name the teachers' files. `warm_start` are observations of
    an earlier study. `journal` records trials that have ended.
    """

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        trials: int | None,
        teachers: Mapping[str, Any],
        *,
        device_seconds: float | None = None,
        warm_start: Sequence[Observation] = (),
        journal: Journal | None = None,
    ) -> None:
        assert (trials is None) != (device_seconds is None), "exactly one of them ends the search"
        self.folder = folder
        self.space = space
        self.max_trials = trials
        self.max_device_seconds = device_seconds
        self.ledger = Ledger(folder, space)
        self._lengths = Lengths.of(folder, space, teachers)
        self.feasibility = self._lengths.feasibility
        self.scheduler = Scheduler(
            tuple(r.epochs for r in space.rungs),
            space.scheduler,
            space.objectives,
            minima=tuple(space.sampler.minimum_per.values()),
        )
        # failed trials of an earlier session that this one retries
        self.retried: list[str] = []
        # set where the space has no further feasible configuration
        self.exhausted: SpaceError | None = None
        self._shares = Shares(space)
        self._beliefs = Beliefs(space, self.scheduler)
        self._decisions = Decisions(self.ledger, space, self.scheduler, self._shares)
        self._history = SamplerHistory(space)
        self._warm_start = tuple(warm_start)
        self._known = self.feasibility.fingerprints(self._warm_start)
        self._journal = journal
        self._baselines_left: list[tuple[str, Baseline]] | None = None  # with their fingerprints
        self._replicates: tuple[int, list[Trial]] = (-1, [])  # who gets them, after so many ends
        self._ends = 0
        self._refuted: set[str] = set()  # baselines that the history knows as such
        # trials of a shorter full run whose configurations are to have a longer one
        self._to_repeat: list[Trial] = []

    def reconcile(self, notice: Callable[[str], None] = lambda _: None) -> None:
        """Continue what the folder holds, see `resume.reconcile`. Raises StudyError."""
        self.retried = reconcile(self.ledger, self._lengths, self._decisions, notice)
        replicates = (trial.ordinal for trial in self.ledger.replicates)
        race.refuse_fewer(self.folder, replicates, self.space.replicates)
        asked = self.ledger.asked.fingerprints
        self._to_repeat = [
            trial
            for trial in self._lengths.to_repeat(self.trials.values())
            if self._at_full_length(trial).fingerprint() not in asked
        ]
        if self._to_repeat:
            notice(
                f"{self.folder}: baselines and contenders of shorter runs are trained again, at"
                f" {self.space.epochs} epochs, beside the number of trials asked for:"
                f" {', '.join(t.trial_id for t in self._to_repeat)}"
            )

    # ------------------------------------------------------------------------------------- next

    def next(self) -> Assignment | None:
        """The next segment to train; None while there is none.

        Interrupted trials come first, then promotions, new configurations and replicates.
        """
        trial = (
            self.ledger.interrupted
            or self._decisions.promote()
            or self._new_configuration()
            or self._new_replicate()
        )
        if trial is None:
            return None
        self.ledger.start(trial)
        return Assignment(
            trial.trial_id,
            trial.config,
            self.ledger.checkpoints(trial),
            trial.segment.fidelities,
        )

    @property
    def done(self) -> bool:
        """True where nothing is left to train, and nothing that is trained could change that."""
        return (
            not self.ledger.executing
            and self.ledger.interrupted is None
            and self._searched
            and not self._open_replicates()
        )

    @property
    def _searched(self) -> bool:
        """True where no configuration is left to ask for, to promote or to wait for."""
        return (
            not self._may_ask()
            and self._enqueued() is None
            and not self._to_repeat
            and self.scheduler.next_promotion() is None
            and not self.ledger.searching
        )

    def _new_configuration(self) -> Trial | None:
        """The next configuration: baselines first, then enqueued ones, then the sampler's.

        Before all of them those of a shorter full run that are worth a longer one.
        """
        ordinal = self.ledger.asked.free_ordinal
        if self._to_repeat:
            earlier = self._to_repeat.pop(0)
            proposal = Proposal(
                dict(earlier.hyperparameters),
                {longer.REPEATS: earlier.trial_id},
                earlier.proposed_by or ProposedBy.CHANCE,
            )
            return self._add(ordinal, earlier.origin, earlier.label, proposal)
        if (baseline := self._open_baseline()) is not None and self._may_ask():
            proposal = Proposal(dict(baseline.overrides), {}, ProposedBy.BASELINE)
            return self._add(ordinal, Origin.BASELINE, baseline.label, proposal)
        if (enqueued := self._enqueued()) is not None:
            noted = {queue.NOTE: enqueued.name}
            proposal = Proposal(dict(enqueued.overrides), noted, ProposedBy.QUEUE)
            return self._add(ordinal, Origin.SEARCH, enqueued.label, proposal)
        if not self._may_ask():
            return None
        asked = self.ledger.asked.fingerprints
        owed = self._shares.owed(
            self.ledger.asked.groups,
            lambda name, choice: self.feasibility.exhausted(name, choice, asked),
        )
        if (near := self._near_baseline(ordinal, owed)) is not None:
            return self._add(ordinal, Origin.SEARCH, "", near)
        try:
            seen = [*self._warm_start, *self.observations()]
            proposal = self.feasibility.proposal(ordinal, seen, asked, owed, self._known)
        except SpaceError as error:
            self.exhausted = error  # told by the caller once all trials have ended
            return None
        return self._add(ordinal, Origin.SEARCH, "", proposal)

    def _near_baseline(self, ordinal: int, owed: Owed | None) -> Proposal | None:
        """A proposal near a believed baseline, if one is due."""
        asked, near = self.ledger.asked, self.ledger.asked.near
        without, number = set[str](), number_of(near)

        def proposals(baseline: Trial) -> Iterator[Proposal]:
            for attempt in range(MODEL_ATTEMPTS):
                yield self._beliefs.near(baseline, ordinal, attempt, number)

        while True:
            baseline = self._beliefs.choose(asked.baseline_trials, near, owed, without)
            if baseline is None:
                return None
            found = self.feasibility.first_feasible(
                proposals(baseline), asked.fingerprints, trial_id_of(ordinal)
            )
            if found is not None:
                return found
            without.add(baseline.trial_id)

    def _open_baseline(self) -> Baseline | None:
        """The first baseline that was not asked for; one of a grown space may come late."""
        if self._baselines_left is None:
            self._baselines_left = [
                (self.feasibility.config(b.overrides, b.label).fingerprint(), b)
                for b in self.space.baselines
            ]
        while self._baselines_left and self._baselines_left[0][0] in self.ledger.asked.baselines:
            del self._baselines_left[0]
        return self._baselines_left[0][1] if self._baselines_left else None

    def _at_full_length(self, trial: Trial) -> TrainConfig:
        """The run of the trial's configuration at the full length of the space."""
        return self.feasibility.config(trial.hyperparameters, trial.trial_id)

    def _enqueued(self) -> Enqueued | None:
        return queue.waiting(self.folder, self.ledger.asked.enqueued)

    def _may_ask(self) -> bool:
        """True where the search goes on to ask for a configuration of its own."""
        if self.exhausted is not None:
            return False
        if self.asked_for is not None:
            return self.ledger.asked.free_ordinal < self.asked_for
        assert self.max_device_seconds is not None, "exactly one of them ends the search"
        return self.ledger.device_seconds < self.max_device_seconds

    def _open_replicates(self) -> list[tuple[Trial, int]]:
        """Replicates to train next, once the search is over: see `race.open_replicates`."""
        if not self.space.replicates.seeds or not self._searched:
            return []
        return race.open_replicates(
            self.trials,
            self._to_replicate(),
            self.space.replicates,
            self.space.objectives,
            self.space.constraints,
        )

    def _to_replicate(self) -> list[Trial]:
        """The trials to replicate, chosen again where another one has ended."""
        if self._replicates[0] != self._ends:
            chosen = front.to_replicate(self.trials.values(), self.space)
            self._replicates = self._ends, chosen
        return self._replicates[1]

    def _new_replicate(self) -> Trial | None:
        """The first of a round's replicates.

        All of the round get their rows at once: the front waits for them all.
        """
        for trial, number in self._open_replicates():
            seed = trial.config.training.seed + number
            overrides = {**trial.hyperparameters, "training.seed": seed}
            proposal = Proposal(overrides, {}, trial.proposed_by or ProposedBy.CHANCE)
            added = self._add(trial.ordinal, Origin.REPLICATE, trial.label, proposal, number)
            self.ledger.write(added, epochs=False)
        return self.ledger.interrupted

    def _add(
        self, ordinal: int, origin: Origin, label: str, proposal: Proposal, replicate: int = 0
    ) -> Trial:
        trial_id = trial_id_of(ordinal, replicate)
        config = self.feasibility.config(proposal.hyperparameters, trial_id)
        trial = Trial(
            trial_id=trial_id,
            ordinal=ordinal,
            origin=origin,
            label=label,
            hyperparameters=proposal.hyperparameters,
            config=config,
            segments=segments_of(self.space, ordinal, origin, config, proposal.by),
            costs=self.feasibility.costs(config),
            notes=proposal.notes,
            proposed_by=proposal.by,
        )
        self.ledger.add(trial)
        return trial

    # ----------------------------------------------------------------------------------- report

    def report(
        self, trial_id: str, result: EpochResult, facts: Mapping[str, object] | None = None
    ) -> bool:
        """Take the report of a finished epoch; returns whether the worker trains on.

        `facts` are columns `run.*` that the worker knows.
        """
        trial = self.trials[trial_id]
        if facts:
            # the worker knows its own command alone
            own = {"run.devices": self.space.resources.devices, "run.command": command()}
            trial.facts |= {**facts, **own}
        if result.epoch > trial.position[1] + 1:
            # a report was lost with its worker: its checkpoint has the epochs in between
            for known in checkpoint_history(self.ledger.checkpoints(trial))[: result.epoch - 1]:
                trial.add_epoch(known)
        trial.add_epoch(result)
        if trial.full_length:
            return self._end(trial, Status.FINISHED)
        rung = self._decisions.rung_of(trial)
        if rung is not None:
            decision = self._decisions.on_arrival(trial, rung)
            if decision != Decision.CONTINUED:
                return self._end(trial, Status(decision))
            segment = trial.segment
            trial.leave_rung()
            if trial.segment is not segment:
                self.interrupt(trial_id)  # the next segment is an assignment of its own
                return False
        self.ledger.write(trial, now=False)
        return True

    def fail(self, trial_id: str, error: str, failure: Failure = Failure.ERROR) -> None:
        """End a trial by an error: it is on no front. `--resume` retries `MACHINE_FAILURES`."""
        trial = self.trials[trial_id]
        trial.error, trial.failure = error, failure
        self._end(trial, Status.FAILED)

    def place(self, trial_id: str) -> None:
        """Note that a worker has taken the trial."""
        trial = self.trials[trial_id]
        trial.placed = datetime.now(UTC)
        self.ledger.write(trial, epochs=False)

    def displace(self, trial_id: str) -> None:
        """Note that the trial has lost its worker, and waits for another place."""
        self.trials[trial_id].placed = None

    def interrupt(self, trial_id: str) -> None:
        """Note that the trial is not trained any more, through no fault of its own: it resumes."""
        trial = self.trials[trial_id]
        trial.executing = False
        trial.placed = None
        self.ledger.write(trial)

    def close(self) -> None:
        """End the search: trials that are still paused are stopped."""
        stopped = [trial for trial in self.trials.values() if trial.status == Status.PAUSED]
        for trial in stopped:
            trial.status = Status.STOPPED
        # A finished study, whose rows say so, is not rewritten.
        self.ledger.write_ended([t for t in stopped if t.written_status != Status.STOPPED])
        if self._journal is not None:
            # trials that were paused already when the study was resumed are not in it yet
            self._journal.sync(self.trials.values())

    def _end(self, trial: Trial, status: Status) -> bool:
        trial.status = status
        trial.executing = False
        self._ends += 1
        self.ledger.write(trial)
        if self._journal is not None and status != Status.PAUSED:
            self._journal.add(trial)
        return False

    # ------------------------------------------------------------------------------------- look

    @property
    def trials(self) -> dict[str, Trial]:
        """All trials by trial_id, replicates included."""
        return self.ledger.trials

    def observations(self) -> list[Observation]:
        """Observations of this study's trials, for the sampler."""
        refuted = self._beliefs.refuted(self.ledger.asked.baseline_trials)
        for trial_id in {*self.ledger.changed, *(refuted ^ self._refuted)}:
            self._history.note(self.trials[trial_id], refuted=trial_id in refuted)
        self._refuted = refuted
        self.ledger.changed.clear()
        return self._history.observations()

    @property
    def asked_for(self) -> int | None:
        """Configurations of the whole search so far; None where device time ends it.

        Those that were added by hand, and those of a shorter full run, come on top.
        """
        if self.max_trials is None:
            return None
        return self.max_trials + self.ledger.asked.beside

    def counts(self) -> Counter[Status]:
        """Number of configurations in each state, replicates aside."""
        return Counter(trial.status for trial in self.ledger.configurations)
