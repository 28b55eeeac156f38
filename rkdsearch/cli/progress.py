"""What a person sees while a search runs: a live panel on a terminal, a plain line now and then elsewhere."""

import logging
import statistics
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from rkdsearch.errors import StudyError
from rkdsearch.pace import duration
from rkdsearch.results.objectives import OBJECTIVES, USUAL

if TYPE_CHECKING:
    from rkdsearch.search.study import Study
    from rkdsearch.search.teachers import TeacherStep
    from rkdsearch.training.epoch import EpochResult
    from rkdsearch.training.trainer import Trainer

LINE_EVERY_SECONDS = 10.0
_console = Console(highlight=False, soft_wrap=True)


def said(text: str) -> None:
    """One line."""
    _console.print(text, markup=False)


class _Heard(logging.Handler):
    @override
    def emit(self, record: logging.LogRecord) -> None:
        from rkdsearch.training.run import is_first_process

        if is_first_process():
            said(record.getMessage())


_heard = _Heard()


def hear_pace() -> None:
    """From now on, what takes long in this process says now and then how far it is."""
    logger = logging.getLogger("rkdsearch.pace")
    logger.setLevel(logging.INFO)
    logger.addHandler(_heard)


def ready_line(trainer: "Trainer") -> str:
    """By what and on what a run alone is about to train."""
    import torch

    from rkdsearch.training.rows import device_name

    config, splits = trainer.config, trainer.splits
    threads, validation = torch.get_num_threads(), len(splits.validation)
    return (
        f"{trainer.device.type} ({device_name(trainer.device)}),"
        f" {_counted(trainer.processes, 'process', 'es')}, {_counted(threads, 'thread', 's')}:"
        f" {len(splits.train):,} training and"
        f" {min(config.validation.images or validation, validation):,} validation images of"
        f" {config.data.name}, {_counted(trainer.batches, 'batch', 'es')} an epoch"
    )


def _counted(number: int, thing: str, plural: str) -> str:
    return f"{number} {thing}{plural if number > 1 else ''}"


def seconds_left(done: "Sequence[EpochResult]") -> float | None:
    """For the epochs still to do, at the pace of those that are done; None where all are."""
    last = done[-1]
    return (
        (last.epochs - last.epoch) * statistics.mean(e.seconds for e in done)
        if last.epoch < last.epochs
        else None
    )


def epoch_line(epoch: "EpochResult", left: float | None = None) -> str:
    """How a run alone gets on, and that it takes so many seconds more."""
    text = f"epoch {epoch.epoch:3} of {epoch.epochs}  loss {epoch.loss:.4f}"
    if epoch.clean_accuracy is not None:
        text += f"  clean {epoch.clean_accuracy:.3f}  robust {epoch.robust_accuracy:.3f}"
    if epoch.best is not None and epoch.best.epoch == epoch.epoch:
        text += "  best"
    text += f"  {epoch.images_per_second:.0f} images/s"
    return text if left is None else f"{text}  about {duration(left)} left"


class TeacherProgress:
    """How teachers get on: every fifth of a training, and now and then a line."""

    def __init__(self) -> None:
        self._line_at = time.monotonic()

    def update(self, step: "TeacherStep") -> None:
        """Something has happened to a teacher."""
        epoch, so_far, measured = step.epoch, step.so_far, step.measured
        if step.skipped:
            self._say(f"{step.role} teacher skipped: no method of this space asks it")
        if epoch is not None and (self._due or epoch.epoch % max(1, epoch.epochs // 5) == 0):
            accuracies = (
                ""
                if epoch.clean_accuracy is None
                else f", clean {epoch.clean_accuracy:.3f}, robust {epoch.robust_accuracy:.3f}"
            )
            self._say(f"{step.role} teacher: epoch {epoch.epoch} of {epoch.epochs}{accuracies}")
        if so_far is not None and self._due:
            reached = (
                f"clean {so_far.clean_accuracy:.3f}, robust {so_far.robust_accuracy:.3f} so far"
            )
            self._say(
                f"{step.role} teacher: {so_far.images} of {step.of_images} validation images"
                f" examined, {reached}"
            )
        if measured is not None:
            self._say(
                f"{step.role} teacher {'trained' if step.trained else 'reused'}: "
                f"clean {measured.clean_accuracy:.3f}, robust {measured.robust_accuracy:.3f} "
                f"on {measured.images} {measured.measured_on} (sha256 {measured.sha256[:12]})"
            )

    @property
    def _due(self) -> bool:
        return time.monotonic() - self._line_at > LINE_EVERY_SECONDS

    def _say(self, text: str) -> None:
        self._line_at = time.monotonic()
        said(text)


class SearchProgress:
    """Listens to a study; also knows what it skipped."""

    def __init__(self, study: "Study") -> None:
        self._started = time.monotonic()
        self._line_at = 0.0
        self._known = {
            t.trial_id
            for t in study.trials.values()
            if t.status in ("finished", "stopped", "paused", "failed")
        }
        self._epochs_before = {t.trial_id: t.trained for t in study.trials.values()}
        self._seconds_before = study.device_seconds
        self._live = (
            Live(console=_console, refresh_per_second=4, transient=True)
            if _console.is_terminal
            else None
        )
        if self._known:
            said(
                f"taking up {study.folder}: {len(self._known)} trials are known already and are not"
                " repeated"
            )
        if study.again:
            said(
                "what the machine failed goes on from its last epoch:"
                f" {', '.join(sorted(study.again))}"
            )
        for label, excess in study.too_large().items():
            said(
                f"{label}: its student has {excess.count:,} {excess.heading},"
                f" constraints.{excess.cost} allows {excess.limit:,}: a baseline that will be on no"
                " front"
            )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Give the terminal back."""
        if self._live:
            self._live.stop()

    def update(self, study: "Study") -> None:
        """Something may have changed."""
        if self._live:
            self._live.update(Group(Text(self._headline(study)), front_table(study)))
        elif time.monotonic() - self._line_at > LINE_EVERY_SECONDS:
            self._line_at = time.monotonic()
            said(self._headline(study))

    def finished(self, study: "Study", *, nothing_to_do: bool = False) -> None:
        """The last word. Raises StudyError where every trial has failed, and SpaceError where there was less to try than was wanted."""
        from rkdsearch.search.ledger import BY_MACHINE

        self.stop()
        if nothing_to_do:
            said(f"nothing to do: all {len(study.trials)} trials of {study.folder} have ended")
        failed = [t for t in study.trials.values() if t.status == "failed"]
        for trial in failed[:5]:
            said(
                f"{trial.trial_id} failed: {trial.error}"
                + (" (--resume tries it again)" if trial.failure in BY_MACHINE else "")
            )
        _console.print(front_table(study))
        said(self._headline(study))
        if failed and len(failed) == len(study.trials):
            raise StudyError(
                f"{study.folder}: all {len(failed)} trials failed, so there is no front; mend what"
                " they say, and go on with --resume where the machine was at fault, or else with a"
                " changed space in another folder"
            )
        if study.nothing_left is not None:
            raise study.nothing_left

    def _headline(self, study: "Study") -> str:
        counts = study.counts()
        states = ", ".join(
            f"{counts[s]} {s}" for s in ("finished", "stopped", "paused", "failed") if counts.get(s)
        )
        elapsed = time.monotonic() - self._started
        of = "" if study.wanted is None else f" of {study.wanted}"
        repeats = [t for t in study.trials.values() if t.origin == "replicate"]
        text = (
            f"{elapsed:4.0f} s  {len(study.trials) - len(repeats)}{of} asked,"
            f" {len(study.executing)} running"
        )
        text += (
            f", {sum(t.status != 'running' for t in repeats)} of {len(repeats)} repeats with fresh"
            " seeds"
            if repeats
            else ""
        )
        if study.budget is not None:
            text += f", {study.device_seconds / 3600:.2f} of {study.budget / 3600:.2f} device hours"
        text += f", {states}" if states else ""
        left = self._left(study)
        return text if left is None else f"{text}; about {duration(left)} left"

    def _left(self, study: "Study") -> float | None:
        """Epochs still expected, at the pace of this session. Who will be promoted is not known: a mean of what happened so far."""
        done_now = sum(
            t.trained - self._epochs_before.get(t.trial_id, 0) for t in study.trials.values()
        )
        elapsed = time.monotonic() - self._started
        ended = [
            t.trained for t in study.trials.values() if not t.executing and t.origin == "search"
        ]
        if done_now < 5 or study.done:
            return None
        if study.wanted is None:
            spent = study.device_seconds - self._seconds_before
            return (
                None
                if study.budget is None or spent <= 0
                else max(0.0, study.budget - study.device_seconds) * elapsed / spent
            )
        repeats = [t for t in study.trials.values() if t.origin == "replicate"]
        asked = len(study.trials) - len(repeats)
        replicates = study.space.replicates
        to_come = replicates.seeds * (
            replicates.contenders + (len(study.space.baselines) if replicates.baselines else 0)
        )
        repeats_left = (
            sum(t.status == "running" and not t.executing for t in repeats) if repeats else to_come
        )
        first_left = sum(
            sum(segment.epochs for segment in t.segments) - t.trained
            for t in study.executing
            if t.origin != "search"
        )
        to_ask = study.wanted - asked
        first_unasked = max(0, min(len(study.space.baselines), study.wanted) - asked)
        typical = statistics.mean(ended) if len(ended) >= 3 else study.space.epochs / 2
        running = sum(
            max(1.0, typical - t.trained) for t in study.executing if t.origin == "search"
        )
        epochs = (
            first_left
            + running
            + (first_unasked + repeats_left) * study.space.epochs
            + (to_ask - first_unasked) * typical
        )
        return epochs * elapsed / done_now


def front_table(study: "Study") -> Table:
    """The best front so far, of full-length trials, in the study's objectives."""
    from rkdsearch.evaluation.targets import config_label

    shown = dict.fromkeys((*USUAL, *study.space.objectives))
    table = Table(
        title=f"front of {study.folder}: validation, full-length trials",
        title_justify="left",
        box=None,
    )
    for heading in ("trial", *(OBJECTIVES[name].title for name in shown), "what"):
        table.add_column(
            heading, justify="left" if heading in ("trial", "what") else "right", no_wrap=True
        )
    for one in study.front():
        what = one.trial.label or config_label(one.trial.config)
        what += " (RECONSTRUCTED)" if one.trial.config.method.reconstructed else ""
        what += f" ({one.failed} of {one.seeds + one.failed} repeats failed)" if one.failed else ""
        table.add_row(
            one.trial.trial_id, *(OBJECTIVES[name].shown(one.value(name)) for name in shown), what
        )
    return table
