"""A search in progress, without Ray: asks, reports and decisions in, assignments and Parquet rows out.

Ray's part (processes, placement, lost nodes) stands in `tuner.py`; tests and simulations drive this
class directly.
"""

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError, Failure, SpaceError, StudyError
from rkdsearch.results.objectives import OBJECTIVES
from rkdsearch.results.states import Decision
from rkdsearch.results.store import Store
from rkdsearch.search import front, ledger
from rkdsearch.search.assignment import Assignment
from rkdsearch.search.feasibility import ExceededLimit, Feasibility
from rkdsearch.search.front import Judged
from rkdsearch.search.history import SamplerHistory
from rkdsearch.search.journal import Journal
from rkdsearch.search.ledger import Origin, Trial
from rkdsearch.search.resume import Rows, known_epochs, put_aside
from rkdsearch.search.sampler import Observation, Proposal
from rkdsearch.search.scheduler import Rung, Scheduler
from rkdsearch.space import check, ladder
from rkdsearch.space.ladder import Segment
from rkdsearch.space.space import SearchSpace
from rkdsearch.training import config_rows, rows
from rkdsearch.training.epoch import EpochResult

# a running trial's `epochs/` file is rewritten at most so often; its checkpoint holds the rest
EPOCHS_EVERY_SECONDS = 2.0


class Study:
    """Configurations of `space`, kept in `folder`: so many `trials`, or, where that is None, new ones until `device_seconds` are spent.

    `teachers` are overrides that name the teachers' files; `warm` is what earlier studies measured;
    `journal` is told what has ended.
    """

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        trials: int | None,
        teachers: Mapping[str, Any],
        *,
        device_seconds: float | None = None,
        warm: Sequence[Observation] = (),
        journal: Journal | None = None,
    ) -> None:
        assert (trials is None) != (device_seconds is None), "one of both says when to stop asking"
        self.folder = folder
        self.space = space
        self.wanted = trials
        self.budget = device_seconds
        self._warm = tuple(warm)
        self._journal = journal
        self._bounds = Feasibility(space, teachers)
        self._shown = SamplerHistory(space)
        self.scheduler = Scheduler(
            tuple(r.epochs for r in space.rungs), space.scheduler, space.objectives
        )
        self.store = Store(folder, config_rows.columns(m for m in space.method_names if "." in m))
        self.trials: dict[str, Trial] = {}
        self._written: dict[str, float] = {}
        # what the machine failed in an earlier session, taken up again in this one
        self.again: list[str] = []
        # why nothing more is asked for, where the space has nothing more
        self.nothing_left: SpaceError | None = None
        # ordinals of rows that this space cannot read: kept, and not asked again
        self._foreign: set[int] = set()
        self._foreign_seconds = 0.0  # device seconds that these rows say
        # device seconds of trials that do not execute: these spend no more
        self._spent: dict[str, float] = {}

    # ------------------------------------------------------------------------------------------------------------ assigning

    def next(self) -> Assignment | None:
        """The next thing to run: an interrupted trial, a promotion, a new configuration, a repeat; None while there is nothing to do now."""
        trial = self._interrupted() or self._promoted() or self._new() or self._repeated()
        if trial is None:
            return None
        trial.executing = True
        self._spent.pop(trial.trial_id, None)
        trial.status = "running"
        self._write(trial, epochs=False)
        return Assignment(
            trial.trial_id,
            trial.config,
            self._checkpoints(trial) / trial.folder,
            trial.segment.fidelities,
        )

    def _checkpoints(self, trial: Trial) -> Path:
        return ledger.folder_of(self.folder, trial.trial_id)

    @property
    def done(self) -> bool:
        """Whether nothing is left to run, and nothing that runs could make something promotable."""
        return (
            not self.executing
            and self._interrupted() is None
            and self._searched
            and not self._open_repeats()
        )

    @property
    def _searched(self) -> bool:
        """Whether no configuration is left to ask for, to promote or to wait for."""
        return (
            self._open_ordinal() is None
            and self.scheduler.next_promotion() is None
            and not any(t.status == "running" for t in self._configurations())
        )

    @property
    def executing(self) -> list[Trial]:
        """The trials that are being trained now."""
        return [t for t in self.trials.values() if t.executing]

    def _interrupted(self) -> Trial | None:
        waiting = (t for t in self.trials.values() if t.status == "running" and not t.executing)
        return min(waiting, key=lambda t: t.due, default=None)

    def _promoted(self) -> Trial | None:
        found = self.scheduler.next_promotion()
        if found is None:
            return None
        trial, rung = self.trials[found.trial_id], found.rung
        rung.promoted.add(trial.trial_id)
        self._decided(trial, rung, "promoted")
        trial.goes_up()
        return trial

    def _new(self) -> Trial | None:
        ordinal = self._open_ordinal()
        if ordinal is None:
            return None
        if ordinal < len(self.space.baselines):
            baseline = self.space.baselines[ordinal]
            return self._add(
                ordinal, "baseline", baseline.label, Proposal(dict(baseline.overrides), {})
            )
        try:
            proposal = self._bounds.proposal(ordinal, [*self._warm, *self.seen()])
        except SpaceError as error:
            self.nothing_left = error  # what runs and waits has its end first
            return None
        return self._add(ordinal, "search", "", proposal)

    def _open_repeats(self) -> list[tuple[Trial, int]]:
        """Who is repeated, and which of the repeats are to come: every one once, then every one twice, and so on, after the search itself."""
        if not self.space.replicates.seeds or not self._searched:
            return []
        repeats = [
            (trial, repeat)
            for repeat in range(1, self.space.replicates.seeds + 1)
            for trial in self.repeated()
        ]
        return [
            (trial, repeat)
            for trial, repeat in repeats
            if ledger.trial_id_of(trial.ordinal, repeat) not in self.trials
        ]

    def _repeated(self) -> Trial | None:
        """The first of the repeats. All of them get their rows at once: the front waits for the last of them."""
        for trial, repeat in self._open_repeats():
            overrides = {**trial.overrides, "training.seed": trial.config.training.seed + repeat}
            added = self._add(
                trial.ordinal, "replicate", trial.label, Proposal(overrides, {}), repeat
            )
            self._write(added, epochs=False)
        return self._interrupted()

    def _open_ordinal(self) -> int | None:
        """The next configuration's number; None where all that were wanted have been asked, the space has no more, or the time is spent."""
        if self.nothing_left is not None:
            return None
        taken = {t.ordinal for t in self._configurations()} | self._foreign
        # not the count: a damaged row leaves a hole
        ordinal = next(n for n in itertools.count() if n not in taken)
        if self.wanted is not None:
            return ordinal if ordinal < self.wanted else None
        return ordinal if self.budget is not None and self.device_seconds < self.budget else None

    def _configurations(self) -> list[Trial]:
        return [t for t in self.trials.values() if t.origin != "replicate"]

    def _add(
        self, ordinal: int, origin: Origin, label: str, proposal: Proposal, repeat: int = 0
    ) -> Trial:
        trial_id = ledger.trial_id_of(ordinal, repeat)
        config = self._bounds.config(proposal.overrides, trial_id)
        segments = self._segments(ordinal, origin, config)
        trial = Trial(
            trial_id,
            ordinal,
            origin,
            label,
            proposal.overrides,
            config,
            segments,
            self._bounds.costs(config),
            proposal.notes,
        )
        self.trials[trial_id] = trial
        return trial

    def _segments(self, ordinal: int, origin: Origin, config: TrainConfig) -> tuple[Segment, ...]:
        # The baselines climb every rung: it shall know how a published setting looks there.
        first = (
            ladder.starting_rung(self.space.scheduler, ordinal - len(self.space.baselines))
            if origin == "search"
            else 0
        )
        segments = ladder.segments(
            self.space.ladder, self.space.scheduler, config.attack.steps, first
        )
        return (
            segments[-1:] if origin == "replicate" else segments
        )  # the run that was delivered, once more

    def seen(self) -> list[Observation]:
        """What the sampler may know of this study."""
        return self._shown.of(self._configurations())

    # ------------------------------------------------------------------------------------------------------------ reporting

    def report(
        self, trial_id: str, result: EpochResult, facts: Mapping[str, object] | None = None
    ) -> bool:
        """A trial has finished an epoch; returns whether it goes on."""
        trial = self.trials[trial_id]
        if facts:
            trial.facts |= {**facts, "run.devices": self.space.resources.devices}
        if result.epoch > trial.place[1] + 1:
            # A report was lost with its worker; the checkpoint has it.
            for known in known_epochs(self._checkpoints(trial) / trial.folder)[: result.epoch - 1]:
                trial.record(known)
        trial.record(result)
        if trial.full:
            return self._ended(trial, "finished")
        rung = (
            self.scheduler.at(result.epoch)
            if trial.segment.has(result.epoch) and trial.origin != "replicate"
            else None
        )
        if rung is None:
            self._write(trial, now=False)
            return True
        if not self._at_rung(trial, rung):
            return self._ended(trial, self._held)
        segment = trial.segment
        trial.goes_up()
        if trial.segment is segment:
            self._write(trial, now=False)
            return True
        self.interrupt(trial_id)  # its next run is an assignment of its own
        return False

    def _at_rung(self, trial: Trial, rung: Rung) -> bool:
        if trial.trial_id in rung.promoted:
            # promoted already: it reports the rung's epoch once more before it trains on
            return True
        values = trial.merits_at(rung.epochs, self.space.objectives)
        assert values is not None, "rungs are validated"
        self._stands(rung, trial, values)
        if trial.origin != "search":
            # the baselines run to full length, whatever the scheduler says
            rung.promoted.add(trial.trial_id)
        decision = self.scheduler.decide(rung, trial.trial_id)
        self._decided(trial, rung, decision)
        return decision == Decision.CONTINUED

    def _stands(self, rung: Rung, trial: Trial, values: tuple[float, ...]) -> None:
        """The trial is ranked on the rung; not a baseline whose settings say nothing there yet, or it would take a searched trial's place."""
        if trial.origin == "search" or rung.epochs > check.undecided_until(trial.config):
            self.scheduler.record(rung, trial.trial_id, values)

    def fail(self, trial_id: str, error: str, failure: Failure = Failure.ERROR) -> None:
        """The trial cannot go on: its error is kept, its rows stay, it is on no front. What the machine did is tried again after a restart."""
        trial = self.trials[trial_id]
        trial.error, trial.failure = error, failure
        self._ended(trial, "failed")

    def interrupt(self, trial_id: str) -> None:
        """The trial's process is gone and nothing is known to be wrong with the trial: it stays `running`, to be taken up again."""
        trial = self.trials[trial_id]
        trial.executing = False
        self._write(trial)

    def close(self) -> None:
        """The search is over: what is still paused was stopped by the scheduler."""
        for trial in self.trials.values():
            if trial.status == "paused" and trial.written == "stopped":
                trial.status = "stopped"  # as its row has it: a finished study is left as it is
            elif trial.status == "paused":
                self._ended(trial, "stopped")
        if self._journal is not None:
            # what was taken up as paused has no line in it
            self._journal.sync(self.trials.values())

    def _ended(self, trial: Trial, status: ledger.Status) -> bool:
        trial.status = status
        trial.executing = False
        self._write(trial)
        if self._journal is not None and status != "paused":
            self._journal.add(trial)
        return False

    def _decided(self, trial: Trial, rung: Rung, decision: str) -> None:
        reached = trial.at(rung.epochs)
        assert reached is not None, "it stands there"
        best = reached.best
        assert best is not None, "rungs are validated"
        place = self.scheduler.rank(rung, trial.trial_id) if trial.trial_id in rung.values else None
        trial.decisions.append(
            {
                "epochs": rung.epochs,
                "validation_attack_steps": reached.validation_attack_steps
                or trial.config.validation.attack.steps,
                "clean_accuracy": best.clean_accuracy,
                "robust_accuracy": best.robust_accuracy,
                "worst_class_accuracy": best.worst_class_accuracy,
                **trial.costs,
                "best_epoch": best.epoch,
                "rank": None if place is None else place.rank,
                "of": None if place is None else place.of,
                "decision": decision,
                "rule": "baseline: always full length"
                if trial.origin != "search"
                else self.scheduler.rule,
                "decided": datetime.now(UTC),
                "training_attack_steps": reached.training_attack_steps,
                "validation_images": reached.images,
            }
        )
        self.store.write_rungs(trial.trial_id, trial.decisions)

    def _write(self, trial: Trial, *, epochs: bool = True, now: bool = True) -> None:
        if (
            not now
            and time.monotonic() - self._written.get(trial.trial_id, 0.0) < EPOCHS_EVERY_SECONDS
        ):
            return
        self._written[trial.trial_id] = time.monotonic()
        trial.written = trial.status
        if epochs:
            self.store.write_epochs(
                trial.trial_id,
                [
                    {"segment": segment, **rows.epoch(e)}
                    for segment, run in enumerate(trial.runs)
                    for e in run
                ],
            )
        self.store.write_trial(
            ledger.row_of(trial, self.folder.name, config_rows.row(trial.config))
        )

    # ------------------------------------------------------------------------------------------------------------ reconciling

    def reconcile(self, notice: Callable[[str], None] = lambda _: None) -> None:
        """Take up what the folder holds: rows first, then checkpoints, then the rungs that both imply.

        `notice` is given a sentence about rows that this space cannot read. Raises StudyError where
        one of them is not over.
        """
        self.store.sweep()
        stored = Rows(self.store)
        for file in self.store.damaged:
            put_aside(self.folder, file)
        for row in stored.trials:
            trial = self._revived(row, stored)
            if trial is None:
                self._foreign.add(int(row["ordinal"]))
                self._foreign_seconds += row["run.device_seconds"] or 0.0
            else:
                self.trials[trial.trial_id] = trial
        unreadable = len(stored.trials) - len(self.trials)
        if unreadable:
            notice(
                f"{self.folder}: {unreadable} of {len(stored.trials)} rows cannot be read by this"
                " space: kept, and not asked again"
            )
        for trial in self.trials.values():
            self._fill_rungs(trial)
        for trial in self.trials.values():
            self._take_up(trial)

    def _revived(self, row: Mapping[str, Any], stored: Rows) -> Trial | None:
        """The trial of a row; None where it has ended and this space cannot read it."""
        try:
            config = self._bounds.config(
                json.loads(row["hyperparameters"] or "{}"), row["trial_id"]
            )
            costs = self._bounds.costs(config)
        except ConfigError as error:
            if row["status"] in ("running", "paused"):
                raise StudyError(
                    f"{self.folder}: a trial that is not over cannot be read by this space:"
                    f" {error}; go on with the space and the version that asked for it, or give"
                    " this search a folder of its own with --study"
                ) from None
            return None
        return stored.trial(
            row, config, self._segments(int(row["ordinal"]), row["origin"], config), costs
        )

    def _fill_rungs(self, trial: Trial) -> None:
        """Fill the rungs from the trial's decisions. A report that was lost is made again by the worker that takes the trial up."""
        undecided = self._undecided(trial)
        for rung in self.scheduler.rungs if trial.origin != "replicate" else ():
            decided = [d["decision"] for d in trial.decisions if d["epochs"] == rung.epochs]
            values = trial.merits_at(rung.epochs, self.space.objectives)
            beyond = trial.place > trial.place_of(rung.epochs)
            if values is None or not (decided or beyond or rung is undecided):
                continue
            self._stands(rung, trial, values)
            if beyond or (decided and decided[-1] in ("continued", "promoted")):
                rung.promoted.add(trial.trial_id)

    def _undecided(self, trial: Trial) -> Rung | None:
        """The rung at which a trial waits whose decision there was lost with its file."""
        rung = self.scheduler.at(trial.place[1])
        held = trial.status in ("paused", "stopped") and trial.origin != "replicate"
        if (
            rung is None
            or not held
            or trial.place != trial.place_of(rung.epochs)
            or any(d["epochs"] == rung.epochs for d in trial.decisions)
        ):
            return None
        return rung if trial.merits_at(rung.epochs, self.space.objectives) is not None else None

    def _take_up(self, trial: Trial) -> None:
        """Where the trial stands, now that all rungs are filled; its row says so too."""
        if trial.status == trial.written and any(
            OBJECTIVES[name].column not in trial.facts for name in trial.costs
        ):
            # an earlier space did not ask, and readers would not know what we know
            self._write(trial, epochs=False)
        rung = self._undecided(trial)
        if rung is not None:
            self._decided(trial, rung, self._held)
        if trial.status in ("running", "paused", "stopped"):
            last = trial.decisions[-1] if trial.decisions else None
            decision = (
                last["decision"]
                if last is not None and trial.place_of(last["epochs"]) == trial.place
                else None
            )
            # A decision is written before the trial's row: the later of the two may be missing.
            if decision in ("continued", "promoted") or (
                trial.place[1] == 0 and trial.place[0] > 0
            ):
                trial.status = "running"
            elif decision in ("paused", "stopped"):
                trial.status = self._held
        if trial.written == "failed" and trial.status != "failed":
            self.again.append(trial.trial_id)
        # Before readers count a failed repeat among those that are over. What a finished search
        # stopped stays so until it goes on (`close`).
        if trial.status != trial.written and (trial.written, trial.status) != ("stopped", "paused"):
            self._write(trial)

    @property
    def _held(self) -> ledger.Status:
        """What a trial is that does not go on from its rung."""
        return "paused" if self.space.scheduler.kind == "promotion" else "stopped"

    # ------------------------------------------------------------------------------------------------------------ looking

    @property
    def device_seconds(self) -> float:
        """What all trials have cost so far, also those that this space cannot read. What a damaged row said that was put aside is not known."""
        return self._foreign_seconds + sum(self._spent_by(trial) for trial in self.trials.values())

    def _spent_by(self, trial: Trial) -> float:
        """The trial's device seconds: summed over its epochs once, where none is being added."""
        if trial.executing:
            return trial.device_seconds
        if trial.trial_id not in self._spent:
            self._spent[trial.trial_id] = trial.device_seconds
        return self._spent[trial.trial_id]

    def counts(self) -> Counter[ledger.Status]:
        """How many configurations are in each state; their repeats are not among them."""
        return Counter(trial.status for trial in self._configurations())

    def judged(self) -> list[Judged]:
        """Who may be on the front, with the accuracies that say so: its own, or means over fresh seeds once all are there."""
        return front.judged(self.trials.values(), self.space)

    def front(self) -> list[Judged]:
        """Who is on it, by the first objective."""
        return front.front(self.trials.values(), self.space)

    def finished(self) -> list[Trial]:
        """The full-length configurations that satisfy the constraints."""
        return front.finished(self.trials.values(), self.space)

    def contenders(self) -> list[Trial]:
        """The best of them, the best first."""
        return front.contenders(self.trials.values(), self.space)

    def repeated(self) -> list[Trial]:
        """Who is trained again with fresh seeds: the contenders, and the baselines where the space says so."""
        return front.repeated(self.trials.values(), self.space)

    def too_large(self) -> dict[str, ExceededLimit]:
        """The baselines, by label, whose students cost more than the constraints allow: they are trained, and are on no front."""
        bounds = self._bounds
        found = {
            baseline.label: bounds.excess(
                bounds.costs(bounds.config(baseline.overrides, baseline.label))
            )
            for baseline in self.space.baselines
        }
        return {label: excess for label, excess in found.items() if excess is not None}
