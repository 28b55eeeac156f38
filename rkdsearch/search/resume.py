"""Resume: a study continues from its folder as if it had never been interrupted.

Finished trials stay finished, paused trials stay paused until they are promoted, and interrupted
trials train on from their last epoch.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError, FileError, StudyError
from rkdsearch.results.beliefs import NOTE as NEAR
from rkdsearch.results.objectives import OBJECTIVES
from rkdsearch.results.states import NOT_IN_SPACE, Origin, ProposedBy, Status
from rkdsearch.search.decisions import Decisions
from rkdsearch.search.ledger import Ledger
from rkdsearch.search.longer import Lengths
from rkdsearch.search.scheduler import Rung
from rkdsearch.search.stored_trials import (
    StoredTrials,
    hide_damaged,
    hyperparameters_of,
)
from rkdsearch.search.trial import Trial, segments_of
from rkdsearch.space.space import SearchSpace, values_of


def reconcile(
    ledger: Ledger,
    lengths: Lengths,
    decisions: Decisions,
    notice: Callable[[str], None],
) -> list[str]:
    """Fill the ledger from its folder: rows, then checkpoints, then the rungs that both imply.

    Trials of shorter full runs are restored as they are, and are at no rung. Returns the failed
    trials that are retried. `notice` is given a sentence about damaged files, and about rows that
    this space cannot read. Raises StudyError where such a trial has not ended, and FileError where
    the system refuses to give a file.
    """
    ledger.store.sweep()
    stored = StoredTrials(ledger.store, lengths.space, notice)
    for file, reason in ledger.store.refused.items():  # put aside, sound rows would be lost
        raise FileError(
            f"{file}: cannot be read: {reason}; nothing was changed, mend that and go on with"
            " --resume"
        )
    for file in ledger.store.damaged:
        notice(hide_damaged(ledger.folder, file, {row["trial_id"] for row in stored.rows}))
    for row in stored.rows:
        trial = _restored(row, stored, ledger, lengths)
        if trial is None:
            ledger.asked.add_unreadable(int(row["ordinal"]), json.loads(row["notes"] or "{}"))
            ledger.unreadable_seconds += row["run.device_seconds"] or 0.0
        else:
            ledger.add(trial)
    _name_beliefs(ledger)
    _relabel(ledger, lengths)
    unreadable = len(stored.rows) - len(ledger.trials)
    if unreadable:
        notice(
            f"{ledger.folder}: {unreadable} of {len(stored.rows)} rows cannot be read by this"
            " space: kept, and not asked again"
        )
    current = [t for t in ledger.trials.values() if lengths.current(t)]
    for trial in current:
        _fill_rungs(trial, decisions)
    retried = [
        t.trial_id
        for t in ledger.trials.values()
        if t.written_status == Status.FAILED and t.status != Status.FAILED
    ]
    for trial in current:
        _settle(trial, ledger, decisions)
    trials = list(ledger.trials.values())
    before = [trial.status for trial in trials]
    for trial in trials:
        _end_or_reopen(trial, lengths)
    ledger.write_ended(
        [
            trial
            for trial, status in zip(trials, before, strict=True)
            if trial.status not in (status, trial.written_status)
            or trial.label != trial.written_label
        ]
    )
    ledger.take_over()
    return retried


def _restored(
    row: Mapping[str, Any],
    stored: StoredTrials,
    ledger: Ledger,
    lengths: Lengths,
) -> Trial | None:
    """Trial of a row; None where it has ended and this space cannot read it."""
    space, feasibility = lengths.of_row(row)
    hyperparameters = hyperparameters_of(row)
    try:
        try:
            config = feasibility.config(hyperparameters, row["trial_id"])
        except ConfigError:  # such as a method, which was fixed and is searched now
            hyperparameters |= _had(row, space)
            config = feasibility.config(hyperparameters, row["trial_id"])
        # what has become searched since keeps the value that it had
        kept = _kept(row, config, space)
        if kept:
            hyperparameters |= kept
            config = feasibility.config(hyperparameters, row["trial_id"])
        costs = feasibility.costs(config)
    except ConfigError as error:
        if row["status"] in (Status.RUNNING, Status.PAUSED):
            raise StudyError(
                f"{ledger.folder}: a trial that is not over cannot be read by this space:"
                f" {error}; go on with the space and the version that asked for it, or give"
                " this search a folder of its own with --study"
            ) from None
        return None
    segments = segments_of(
        space,
        int(row["ordinal"]),
        Origin(row["origin"]),
        config,
        ProposedBy(row["proposed_by"]) if row["proposed_by"] else None,
    )
    trial = stored.trial(row, config, segments, costs, may_retry=space is lengths.space)
    trial.hyperparameters = hyperparameters
    return trial


def _name_beliefs(ledger: Ledger) -> None:
    """Name the baseline that a trial was made near where an earlier version noted its label."""
    names = {
        trial.label.removesuffix(NOT_IN_SPACE): trial.trial_id
        for trial in ledger.trials.values()
        if trial.origin == Origin.BASELINE
    }
    for trial in ledger.trials.values():
        if (near := trial.notes.get(NEAR)) in names:
            trial.notes[NEAR] = names[near]


def _relabel(ledger: Ledger, lengths: Lengths) -> None:
    """Give baselines and their replicates the labels that the space has by now."""
    labels = lengths.labels()
    by_ordinal = {
        trial.ordinal: labels.get(
            trial.config.fingerprint(), trial.label.removesuffix(NOT_IN_SPACE) + NOT_IN_SPACE
        )
        for trial in ledger.trials.values()
        if trial.origin == Origin.BASELINE
    }
    for trial in ledger.trials.values():
        trial.label = by_ordinal.get(trial.ordinal, trial.label)


def _end_or_reopen(trial: Trial, lengths: Lengths) -> None:
    """End a trial that nobody trains on: a shorter full run, or a baseline that the space has lost.

    A lost baseline that is back goes on, and so do its replicates.
    """
    lost = trial.label.endswith(NOT_IN_SPACE)
    if trial.status in (Status.RUNNING, Status.PAUSED):
        over = lost or not lengths.current(trial)
        trial.status = Status.STOPPED if over else trial.status
    elif trial.status == Status.STOPPED and trial.origin in (Origin.BASELINE, Origin.REPLICATE):
        trial.status = Status.RUNNING if lengths.current(trial) and not lost else trial.status


def _kept(row: Mapping[str, Any], config: TrainConfig, space: SearchSpace) -> dict[str, Any]:
    """Values of searched parameters that the row's run had, and that `config` has not."""
    now = values_of(config)
    return {
        name: value
        for name, value in _had(row, space).items()
        if name in now and now[name] != value
    }


def _had(row: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Values of the row's run for what was not searched when it was asked for, and is now."""
    chosen = hyperparameters_of(row)
    had = {p.name: row.get(f"config.{p.name}") for p in space.parameters if p.name not in chosen}
    found = {name: value for name, value in had.items() if value is not None}
    return run.typed_leaves(found, [row["config.method.name"]])


def _fill_rungs(trial: Trial, decisions: Decisions) -> None:
    """Add the trial to the rungs at which it was decided about.

    A rung whose report was lost is left out: the resumed worker reports it again.
    """
    if trial.origin == Origin.REPLICATE:
        return
    lost = _rung_of_lost_decision(trial, decisions)
    for rung in decisions.scheduler.rungs:
        decided = [d for d in trial.decisions if d.epochs == rung.epochs]
        values = decisions.merits(trial, rung)
        beyond = trial.position > trial.position_of(rung.epochs)
        if values is None or not (decided or beyond or rung is lost):
            continue
        decisions.rank(trial, rung, values)
        if beyond or (decided and decided[-1].trains_on):
            rung.promoted.add(trial.trial_id)


def _rung_of_lost_decision(trial: Trial, decisions: Decisions) -> Rung | None:
    """Rung at which the trial is paused or stopped, where the file with that decision was lost."""
    rung = decisions.scheduler.at(trial.position[1])
    waits = trial.status in (Status.PAUSED, Status.STOPPED) and trial.origin != Origin.REPLICATE
    if (
        rung is None
        or not waits
        or trial.position != trial.position_of(rung.epochs)
        or any(d.epochs == rung.epochs for d in trial.decisions)
    ):
        return None
    return rung if decisions.merits(trial, rung) is not None else None


def _settle(trial: Trial, ledger: Ledger, decisions: Decisions) -> None:
    """Set the trial's status, now that all rungs are filled, and write what its row lacks."""
    if trial.status == trial.written_status and any(
        OBJECTIVES[name].column not in trial.facts for name in trial.costs
    ):
        # an earlier space did not name these costs: readers find them in the row
        ledger.write(trial, epochs=False)
    not_promoted = decisions.scheduler.decision_if_not_promoted
    lost = _rung_of_lost_decision(trial, decisions)
    if lost is not None:
        decisions.record(trial, lost, not_promoted)
    if trial.status in (Status.RUNNING, Status.PAUSED, Status.STOPPED):
        last = trial.decisions[-1] if trial.decisions else None
        if last is not None and trial.position_of(last.epochs) != trial.position:
            last = None  # it has trained on since
        number, epochs = trial.position
        # A decision is written before the trial's row: the later of the two may be missing.
        if (last is not None and last.trains_on) or (epochs == 0 and number > 0):
            trial.status = Status.RUNNING
        elif last is not None:
            trial.status = Status(not_promoted)
    # Written now, before readers count a failed replicate among those that have ended. A trial that
    # a finished search stopped stays stopped on disk until it trains on (`Study.close`).
    if trial.status != trial.written_status and (trial.written_status, trial.status) != (
        Status.STOPPED,
        Status.PAUSED,
    ):
        ledger.write(trial)
