"""The ledger: every configuration of a study, its state and its epochs; the one truth, from which all else is derived.

It is kept in Parquet (`trials/`, `epochs/`, `rungs/`) and in the trials' own checkpoints, which
carry their history. Every start reconciles: rows first, then checkpoints, which may know an epoch
more. Finished trials stay finished, paused ones stay paused until they may go on, and only those
that were interrupted go on from their last epoch. Ray and Optuna remember nothing for us.
`resume.py` reads it back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rkdsearch.config import TrainConfig
from rkdsearch.errors import Failure
from rkdsearch.results.objectives import COSTS, OBJECTIVES, merits
from rkdsearch.results.record import ALONE
from rkdsearch.space.ladder import Segment
from rkdsearch.training import rows
from rkdsearch.training.epoch import Best, EpochResult

Origin = Literal["baseline", "search", "replicate"]
Status = Literal["running", "paused", "stopped", "finished", "failed"]
# failures that may not come again: the trial is taken up with the search
BY_MACHINE: tuple[Failure, ...] = (Failure.MEMORY, Failure.WORKER, Failure.FILES)


@dataclass
class Trial:
    """One configuration and what became of it.

    It climbs the ladder in one training run or more (`segments`); `runs` has the epochs of each that
    has begun.
    """

    trial_id: str
    ordinal: int
    origin: Origin
    label: str
    overrides: dict[str, Any]
    config: TrainConfig
    segments: tuple[Segment, ...]
    # of its student: those that the space asks about
    costs: Mapping[str, int] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    status: Status = "running"
    error: str | None = None
    failure: Failure | None = None
    runs: list[list[EpochResult]] = field(default_factory=lambda: [[]])
    decisions: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)  # run.*: what the worker says of itself
    lost_seconds: float = 0.0  # of epochs that were trained, and are gone with a checkpoint
    executing: bool = False
    written: Status | None = None  # what its row says
    asked: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def segment(self) -> Segment:
        """The training run that it is in."""
        return self.segments[len(self.runs) - 1]

    @property
    def folder(self) -> str:
        """Where the run that it is in keeps its checkpoints, below the trial's folder."""
        return self.folder_of(len(self.runs) - 1)

    def folder_of(self, segment: int) -> str:
        """The same of one of its runs: the last one, which is delivered, has the trial's folder itself."""
        return "." if segment == len(self.segments) - 1 else f"leg-{segment}"

    @property
    def run(self) -> list[EpochResult]:
        """The epochs of the run that it is in."""
        return self.runs[-1]

    @property
    def epochs(self) -> list[EpochResult]:
        """The epochs of the latest run that has any: what is known of the trial."""
        return next((run for run in reversed(self.runs) if run), [])

    @property
    def trained(self) -> int:
        """Epochs over all its runs."""
        return sum(len(run) for run in self.runs)

    @property
    def place(self) -> tuple[int, int]:
        """How far it has come: the number of its run, and the epochs there."""
        return len(self.runs) - 1, self.run[-1].epoch if self.run else 0

    @property
    def best(self) -> Best | None:
        """The epoch by which the trial is judged so far."""
        return self.epochs[-1].best if self.epochs else None

    @property
    def full(self) -> bool:
        """Whether it has reached full length, by its last run."""
        return (
            len(self.runs) == len(self.segments)
            and bool(self.run)
            and self.run[-1].epoch >= self.config.training.epochs
        )

    def place_of(self, epochs: int) -> tuple[int, int]:
        """Where the rung of this length stands; beyond the last run where the trial passes it by."""
        return (
            next(
                (i for i, segment in enumerate(self.segments) if segment.has(epochs)),
                len(self.segments),
            ),
            epochs,
        )

    def at(self, epochs: int) -> EpochResult | None:
        """The last epoch before the rung of this length, as the run that climbs it had it; None where it did not come there."""
        number = self.place_of(epochs)[0]
        return (
            next((e for e in self.runs[number] if e.epoch == epochs), None)
            if number < len(self.runs)
            else None
        )

    def merits_at(self, epochs: int, objectives: Sequence[str]) -> tuple[float, ...] | None:
        """The objectives' merits at the best epoch up to the rung of this length, all of that one; None where that was not measured."""
        reached = self.at(epochs)
        if reached is None or reached.best is None:
            return None
        return tuple(merits({name: self.value(name, reached.best) for name in objectives}).tolist())

    def value(self, name: str, judged: object) -> float:
        """One objective of the trial's student: a cost is its own, an accuracy is the attribute of `judged` that is called so."""
        return float(self.costs[name] if name in COSTS else getattr(judged, name))

    @property
    def due(self) -> datetime:
        """Since when the stretch that it is in is wanted: interrupted trials are taken up again in the order in which they began.

        What was asked for later was proposed in the knowledge of what ended earlier, and shall be
        again.
        """
        ends = {segment.epochs for segment in self.segments}
        begun: list[datetime] = [
            d["decided"]
            for d in self.decisions
            if d["decision"] == "promoted" or (d["decision"] == "continued" and d["epochs"] in ends)
        ]
        return max([self.asked, *begun])

    @property
    def device_seconds(self) -> float:
        """What it has cost so far: seconds of training and validation times the devices that it held."""
        return rows.devices(self.facts) * self.seconds

    @property
    def seconds(self) -> float:
        """Of training and validation, lost epochs included."""
        return self.lost_seconds + sum(e.seconds for run in self.runs for e in run)

    def record(self, result: EpochResult) -> None:
        """Add an epoch; one that is already known is replaced by the same, or by another: then its checkpoint was lost, and it has cost twice."""
        while self.run and self.run[-1].epoch >= result.epoch:
            known = self.run.pop()
            self.lost_seconds += known.seconds if known.seconds != result.seconds else 0.0
        self.run.append(result)

    def goes_up(self) -> None:
        """It has gone on from a rung: where that was the last of its run, the next run begins."""
        if (
            self.run
            and self.run[-1].epoch == self.segment.epochs
            and len(self.runs) < len(self.segments)
        ):
            self.runs.append([])


def trial_id_of(ordinal: int, repeat: int = 0) -> str:
    """`t00007`, and `t00007-r2` for its second repeat: also the name of the trial's files and folder."""
    return f"t{ordinal:05d}" + (f"-r{repeat}" if repeat else "")


def folder_of(study: Path, trial_id: str) -> Path:
    """Where the trial keeps its checkpoints; a run alone has the whole folder."""
    return study if trial_id == ALONE else study / "checkpoints" / trial_id


def row_of(trial: Trial, study: str, config_row: Mapping[str, object]) -> dict[str, object]:
    """The trial's row in `trials/`."""
    return {
        "trial_id": trial.trial_id,
        "study": study,
        "ordinal": trial.ordinal,
        "origin": trial.origin,
        "label": trial.label,
        "status": trial.status,
        "error": trial.error,
        "failure": trial.failure,
        "asked": trial.asked,
        "hyperparameters": trial.overrides,
        "notes": trial.notes,
        **config_row,
        **rows.measured(
            trial.config,
            trial.epochs,
            trial.facts,
            earlier=[e for run in trial.runs if run is not trial.epochs for e in run],
        ),
        # also where its worker did not say
        **{OBJECTIVES[name].column: cost for name, cost in trial.costs.items()},
        "run.wall_seconds": trial.seconds,
        "run.device_seconds": trial.device_seconds,
    }
