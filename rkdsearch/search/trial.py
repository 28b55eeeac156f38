"""A trial: one configuration of a study, and what was measured and decided about it so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rkdsearch.config import TrainConfig
from rkdsearch.errors import Failure
from rkdsearch.results.flags import Flag
from rkdsearch.results.objectives import COSTS, merits
from rkdsearch.results.rows import DecisionRow
from rkdsearch.results.states import Decision, Origin, ProposedBy, Status
from rkdsearch.space import ladder
from rkdsearch.space.ladder import Segment
from rkdsearch.space.space import SearchSpace
from rkdsearch.training import rows
from rkdsearch.training.epoch import Best, EpochResult


@dataclass
class Trial:
    """One configuration, and what was measured and decided about it so far.

    It is trained in one segment or more. `epochs_by_segment` has the epochs of each segment that
    has begun.
    """

    trial_id: str
    ordinal: int
    origin: Origin
    label: str
    hyperparameters: dict[str, Any]
    config: TrainConfig
    segments: tuple[Segment, ...]
    # of its student, by objective: only those that the space names
    costs: Mapping[str, int] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)  # of the sampler (NSGA's generation)
    proposed_by: ProposedBy | None = None  # None: its row is of a version that did not say
    status: Status = Status.RUNNING
    error: str | None = None
    failure: Failure | None = None
    epochs_by_segment: list[list[EpochResult]] = field(default_factory=lambda: [[]])
    decisions: list[DecisionRow] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)  # columns `run.*`, as its worker reports
    lost_seconds: float = 0.0  # of epochs that were trained, and whose checkpoint was lost
    earlier_seconds: float = 0.0  # of training, in earlier sessions
    earlier_device_seconds: float = 0.0  # times the devices that it held then
    executing: bool = False
    placed: datetime | None = None  # when a worker took it; None: it waits for a place
    written_status: Status | None = None  # status in its row on disk
    written_label: str | None = None  # label there
    asked: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def segment(self) -> Segment:
        """The current segment."""
        return self.segments[len(self.epochs_by_segment) - 1]

    @property
    def segment_folder(self) -> str:
        """Folder of the current segment's checkpoints, relative to the trial's folder."""
        return self.folder_of_segment(len(self.epochs_by_segment) - 1)

    def folder_of_segment(self, number: int) -> str:
        """Folder of a segment's checkpoints, relative to the trial's folder.

        The last segment is the result: its checkpoints lie in the trial's folder itself.
        """
        return "." if number == len(self.segments) - 1 else f"segment-{number}"

    @property
    def segment_epochs(self) -> list[EpochResult]:
        """Epochs of the current segment."""
        return self.epochs_by_segment[-1]

    @property
    def epochs(self) -> list[EpochResult]:
        """Epochs of the latest segment that has any."""
        return next((epochs for epochs in reversed(self.epochs_by_segment) if epochs), [])

    @property
    def epochs_trained(self) -> int:
        """Number of epochs over all segments."""
        return sum(len(epochs) for epochs in self.epochs_by_segment)

    @property
    def position(self) -> tuple[int, int]:
        """Number of the current segment, and of the epochs trained in it."""
        epochs = self.segment_epochs
        return len(self.epochs_by_segment) - 1, epochs[-1].epoch if epochs else 0

    def position_of(self, epochs: int) -> tuple[int, int]:
        """Position of the rung of this length; beyond the last segment where no segment has it."""
        number = next(
            (number for number, segment in enumerate(self.segments) if segment.has(epochs)),
            len(self.segments),
        )
        return number, epochs

    @property
    def best(self) -> Best | None:
        """Best epoch so far, by which the trial is compared."""
        return self.epochs[-1].best if self.epochs else None

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Signs that the validation attack failed on it; none before its full length."""
        return rows.flags(self.epochs) or ()

    @property
    def full_length(self) -> bool:
        """True where its last segment is trained to the end."""
        return (
            len(self.epochs_by_segment) == len(self.segments)
            and bool(self.segment_epochs)
            and self.segment_epochs[-1].epoch >= self.config.training.epochs
        )

    def epoch_at(self, epochs: int) -> EpochResult | None:
        """The epoch that ends at the rung of this length, in its segment; None before it ended."""
        number = self.position_of(epochs)[0]
        if number >= len(self.epochs_by_segment):
            return None
        return next((e for e in self.epochs_by_segment[number] if e.epoch == epochs), None)

    def merits_at(self, epochs: int, objectives: Sequence[str]) -> tuple[float, ...] | None:
        """Merits of the best epoch up to the rung of this length; None where it was not reached.

        Those of a student that never learned are below every other's: no attack moves a constant
        prediction, and a student that has begun to learn may have a lower robust accuracy.
        """
        reached = self.epoch_at(epochs)
        if reached is None or reached.best is None:
            return None
        found = merits({name: self.value(name, reached.best) for name in objectives})
        return tuple((found - reached.best.never_learned(reached.images)).tolist())

    def value(self, name: str, measured: object) -> float:
        """Value of one objective: a cost of the student, or the accuracy `name` of `measured`."""
        return float(self.costs[name] if name in COSTS else getattr(measured, name))

    @property
    def segment_began(self) -> datetime:
        """Start of the current segment; interrupted trials are resumed in this order.

        Later proposals were made in the knowledge of what had ended earlier. In this order they are
        made so again.
        """
        ends = {segment.epochs for segment in self.segments}
        begun = [
            d.decided
            for d in self.decisions
            if d.decision == Decision.PROMOTED or (d.trains_on and d.epochs in ends)
        ]
        return max([self.asked, *begun])

    @property
    def device_seconds(self) -> float:
        """Seconds of training and validation so far, times the devices held meanwhile.

        A resumed search may give a trial another share of a device: earlier seconds keep theirs.
        """
        now = max(0.0, self.seconds - self.earlier_seconds)
        return self.earlier_device_seconds + rows.devices(self.facts) * now

    @property
    def seconds(self) -> float:
        """Seconds of training and validation so far, lost epochs included."""
        return self.lost_seconds + sum(
            e.seconds for epochs in self.epochs_by_segment for e in epochs
        )

    def add_epoch(self, result: EpochResult) -> None:
        """Add an epoch of the current segment, in place of known ones from there on.

        A known epoch that differs was trained twice, because its checkpoint was lost: both cost.
        """
        epochs = self.segment_epochs
        while epochs and epochs[-1].epoch >= result.epoch:
            known = epochs.pop()
            self.lost_seconds += known.seconds if known.seconds != result.seconds else 0.0
        epochs.append(result)

    def leave_rung(self) -> None:
        """Train on from a rung: where it was the segment's last, the next segment begins."""
        if (
            self.segment_epochs
            and self.segment_epochs[-1].epoch == self.segment.epochs
            and len(self.epochs_by_segment) < len(self.segments)
        ):
            self.epochs_by_segment.append([])


def trial_id_of(ordinal: int, replicate: int = 0) -> str:
    """Name of a trial, its files and its folder: `t00007`; `t00007-r2` for the 2nd replicate."""
    return f"t{ordinal:05d}" + (f"-r{replicate}" if replicate else "")


def segments_of(
    space: SearchSpace,
    ordinal: int,
    origin: Origin,
    config: TrainConfig,
    proposed_by: ProposedBy | None = None,
) -> tuple[Segment, ...]:
    """Segments of a trial. A replicate has only the last segment, the one that is the result.

    So has a belief's proposal: the rungs have judged its baseline.
    """
    # baselines visit every rung, so that searched trials can be compared with them
    first = (
        ladder.starting_rung(space.scheduler, ordinal - len(space.baselines))
        if origin == Origin.SEARCH
        else 0
    )
    segments = ladder.segments(space.ladder, space.scheduler, config.attack.steps, first)
    if origin == Origin.SEARCH and proposed_by == ProposedBy.BELIEF:
        return (Segment(segments[-1].fidelities[-1:]),)
    return segments[-1:] if origin == Origin.REPLICATE else segments
