"""The ledger: every trial of a study, in memory and in the study's folder.

On disk it is Parquet (`trials/`, `epochs/`, `rungs/`) and the trials' own checkpoints, which carry
their epochs. All else is derived from it: Ray and Optuna store nothing for a search. `resume.py`
reads it back.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rkdsearch.results import packs
from rkdsearch.results.columns import cells_of
from rkdsearch.results.objectives import OBJECTIVES
from rkdsearch.results.rows import ALONE, TrialRow
from rkdsearch.results.states import Origin, Status
from rkdsearch.results.store import Store
from rkdsearch.search.asked import Asked
from rkdsearch.search.shares import Shares
from rkdsearch.search.trial import Trial
from rkdsearch.space.space import SearchSpace
from rkdsearch.training import config_rows, rows

# At most this often the `epochs/` file of a running trial is rewritten; its checkpoint has all.
EPOCHS_EVERY_SECONDS = 2.0


class Ledger:
    """Trials of one study by trial_id, and their rows in `folder`."""

    def __init__(self, folder: Path, space: SearchSpace) -> None:
        self.folder = folder
        self.name = Store(folder).name
        self.store = Store(folder, config_rows.columns(m for m in space.method_names if "." in m))
        self.trials: dict[str, Trial] = {}
        self.changed: set[str] = set()  # trials, since who follows all changes emptied it
        self.asked = Asked(Shares(space).group)
        self.unreadable_seconds = 0.0  # device seconds in rows that this space cannot read
        self._written_at: dict[str, float] = {}
        self._unpacked: set[str] = set()  # trials that are not trained, with files of their own
        # Kept, not searched for: a search may have ten thousand trials and hundreds of workers.
        self._executing: dict[str, Trial] = {}
        self._interrupted: dict[str, Trial] = {}
        self._rested: dict[str, float] = {}  # device seconds of trials that do not execute

    @property
    def configurations(self) -> list[Trial]:
        """All trials but the replicates."""
        return [t for t in self.trials.values() if t.origin != Origin.REPLICATE]

    @property
    def replicates(self) -> list[Trial]:
        """All replicates."""
        return [t for t in self.trials.values() if t.origin == Origin.REPLICATE]

    @property
    def executing(self) -> list[Trial]:
        """Trials that are being trained now, or wait for a place."""
        return list(self._executing.values())

    @property
    def waiting(self) -> list[Trial]:
        """Trials that are to be trained now, and wait for a place on the cluster."""
        return [t for t in self._executing.values() if t.placed is None]

    @property
    def interrupted(self) -> Trial | None:
        """The interrupted trial that is to be resumed first."""
        return min(self._interrupted.values(), key=lambda t: t.segment_began, default=None)

    @property
    def device_seconds(self) -> float:
        """Device seconds of all trials so far, unreadable rows included.

        What a damaged row said is not known.
        """
        now = [trial.device_seconds for trial in self._executing.values()]
        # exact: a resumed search has its trials in another order, and ends at the same sum
        return math.fsum([self.unreadable_seconds, *self._rested.values(), *now])

    @property
    def searching(self) -> bool:
        """True where a configuration, replicates aside, is being trained or was interrupted."""
        return any(
            t.origin != Origin.REPLICATE
            for t in (*self._executing.values(), *self._interrupted.values())
        )

    def add(self, trial: Trial) -> None:
        """Add a trial. It is not being trained yet."""
        self.trials[trial.trial_id] = trial
        self.asked.add(trial)
        self.note(trial)

    def note(self, trial: Trial) -> None:
        """Note that the trial's state has changed."""
        name, running = trial.trial_id, trial.status == Status.RUNNING
        for kept, belongs in (
            (self._executing, trial.executing),
            (self._interrupted, running and not trial.executing),
        ):
            if belongs:
                kept[name] = trial
            else:
                kept.pop(name, None)
        if trial.executing:
            self._rested.pop(name, None)
        else:
            self._rested[name] = trial.device_seconds
        self.changed.add(name)

    def checkpoints(self, trial: Trial) -> Path:
        """Folder of the current segment's checkpoints."""
        return folder_of(self.folder, trial.trial_id) / trial.segment_folder

    def start(self, trial: Trial) -> None:
        """Mark a trial as being trained from now on; it waits until a worker takes it."""
        trial.executing = True
        trial.placed = None
        trial.status = Status.RUNNING
        self.write(trial, epochs=False)

    def write(self, trial: Trial, *, epochs: bool = True, now: bool = True) -> None:
        """Write the trial's row and, with `epochs`, its epochs; unless `now`, only now and then.

        Whoever changes a trial calls it.
        """
        self.note(trial)
        written_at = self._written_at.get(trial.trial_id, 0.0)
        if not now and time.monotonic() - written_at < EPOCHS_EVERY_SECONDS:
            return
        self._written_at[trial.trial_id] = time.monotonic()
        trial.written_status, trial.written_label = trial.status, trial.label
        if epochs:
            self.store.write_epochs(
                trial.trial_id,
                [
                    cells_of(rows.epoch(e, number))
                    for number, epochs_of_segment in enumerate(trial.epochs_by_segment)
                    for e in epochs_of_segment
                ],
            )
        self.store.write_trial(self._row(trial))
        if trial.status == Status.RUNNING:
            self._unpacked.discard(trial.trial_id)
        else:
            self._unpacked.add(trial.trial_id)
            self._pack()

    def write_ended(self, trials: Sequence[Trial]) -> None:
        """Write the rows of trials that ended without another epoch, those in packs at once."""
        packed = [trial for trial in trials if self.store.packed(trial.trial_id)]
        for trial in packed:
            trial.written_status, trial.written_label = trial.status, trial.label
        if packed:
            self.store.rewrite_packed([self._row(trial) for trial in packed])
        rewritten = {trial.trial_id for trial in packed}
        for trial in trials:
            if trial.trial_id not in rewritten:
                self.write(trial)

    def _row(self, trial: Trial) -> dict[str, object]:
        return row_of(trial, self.name, config_rows.row(trial.config))

    def take_over(self) -> None:
        """Note the states of an earlier session's trials, and which have files of their own."""
        for trial in self.trials.values():
            self.note(trial)
        self._unpacked = {
            name
            for name in self.store.own_files()
            if name in self.trials and self.trials[name].status != Status.RUNNING
        }
        self._pack()

    def _pack(self) -> None:
        """Pack the files of trials that are not trained, where they are many enough."""
        while len(self._unpacked) >= packs.SIZE:
            several = sorted(self._unpacked)[: packs.SIZE]
            self._unpacked.difference_update(several)
            self.store.pack(several)

    def write_decisions(self, trial: Trial) -> None:
        """Write the decisions about a trial."""
        self.store.write_rungs(trial.trial_id, [cells_of(d) for d in trial.decisions])


def folder_of(study: Path, trial_id: str) -> Path:
    """Folder of a trial's checkpoints; a run without a search has the whole folder."""
    return study if trial_id == ALONE else study / "checkpoints" / trial_id


def row_of(trial: Trial, study: str, config_row: Mapping[str, object]) -> dict[str, object]:
    """The cells of the trial's row in `trials/`; `config_row` are its `config.*` cells."""
    earlier = [
        e for epochs in trial.epochs_by_segment if epochs is not trial.epochs for e in epochs
    ]
    # costs stand in the row also before a worker has reported them
    costs = {OBJECTIVES[name].column: cost for name, cost in trial.costs.items()}
    row = TrialRow(
        trial_id=trial.trial_id,
        study=study,
        ordinal=trial.ordinal,
        origin=trial.origin,
        proposed_by=trial.proposed_by,
        label=trial.label,
        status=trial.status,
        error=trial.error,
        failure=trial.failure,
        reconstructed=trial.config.method.reconstructed is not None,
        asked=trial.asked,
        placed=trial.placed,
        hyperparameters=trial.hyperparameters,
        notes=trial.notes,
        metric=rows.metrics(trial.epochs),
        fidelity=rows.reached_fidelity(trial.config, trial.epochs),
        flags=rows.flags(trial.epochs),
        check=rows.checks(trial.epochs),
        facts={**trial.facts, **costs},
        run=rows.run_record(
            trial.config,
            [*earlier, *trial.epochs],
            trial.facts,
            wall_seconds=trial.seconds,
            device_seconds=trial.device_seconds,
        ),
    )
    return {**cells_of(row), **config_row}
