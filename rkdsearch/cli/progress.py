"""Progress of searches, runs and teachers: a live panel on a terminal, plain lines elsewhere."""

import statistics
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rkdsearch.cli.console import console, say
from rkdsearch.cli.remaining import epochs_left
from rkdsearch.errors import StudyError
from rkdsearch.pace import duration, number_of
from rkdsearch.results.chance import is_chance, teacher_at_chance
from rkdsearch.results.objectives import OBJECTIVES, USUAL
from rkdsearch.results.states import Status

if TYPE_CHECKING:
    from rkdsearch.search.study import Study
    from rkdsearch.search.teachers import TeacherStep
    from rkdsearch.training.epoch import Best, EpochResult
    from rkdsearch.training.teacher import TeacherAccuracy
    from rkdsearch.training.trainer import Trainer

LINE_EVERY_SECONDS = 10.0


def ready_line(trainer: "Trainer") -> str:
    """Device, processes and images of a single run, printed before its first epoch."""
    import torch

    from rkdsearch.training.rows import device_name

    config, splits = trainer.config, trainer.splits
    threads, validation = torch.get_num_threads(), len(splits.validation)
    return (
        f"{trainer.device.type} ({device_name(trainer.device)}),"
        f" {number_of(trainer.processes, 'process')}, {number_of(threads, 'thread')}:"
        f" {len(splits.train):,} training and"
        f" {min(config.validation.images or validation, validation):,} validation images of"
        f" {config.data.name}, {number_of(trainer.batches, 'batch')} an epoch"
    )


def seconds_left(done: "Sequence[EpochResult]") -> float | None:
    """Seconds that the remaining epochs will take, at the mean pace so far; None after the last."""
    last = done[-1]
    return (
        (last.epochs - last.epoch) * statistics.mean(e.seconds for e in done)
        if last.epoch < last.epochs
        else None
    )


def epoch_line(epoch: "EpochResult", left: float | None = None) -> str:
    """One epoch of a single run, with the seconds that are `left`."""
    text = f"epoch {epoch.epoch:3} of {epoch.epochs}  loss {epoch.loss:.4f}"
    if epoch.clean_accuracy is not None:
        text += f"  clean {epoch.clean_accuracy:.3f}  robust {epoch.robust_accuracy:.3f}"
    if epoch.best is not None and epoch.best.epoch == epoch.epoch:
        text += "  best"
    text += f"  {epoch.images_per_second:.0f} images/s"
    return text if left is None else f"{text}  about {duration(left)} left"


def teacher_at_chance_line(
    role: str, measured: "TeacherAccuracy", chance: float | None
) -> str | None:
    """The warning about a teacher no better than a constant prediction; None for a better one."""
    if chance is None or not teacher_at_chance(
        role, measured.clean_accuracy, measured.robust_accuracy, measured.images, chance
    ):
        return None
    robust = not is_chance(measured.clean_accuracy, measured.images, chance)
    accuracy = measured.robust_accuracy if robust else measured.clean_accuracy
    return (
        f"WARNING: the {role} teacher is no better than a constant prediction: its"
        f" {'robust' if robust else 'clean'} accuracy is {accuracy:.3f}, and a constant is right on"
        f" {chance:.3f} of these images; a student learns nothing from it: train it longer, or name"
        " another"
    )


def flagged_line(role: str, measured: "TeacherAccuracy") -> str | None:
    """The warning about a teacher on which the validation attack fails; None without a flag."""
    return measured.doubt and f"WARNING: the {role} teacher is flagged: {measured.doubt}"


def chance_line(best: "Best", images: int | None, chance: float | None) -> str | None:
    """The sentence about a student no better than a constant prediction; None for a better one."""
    if not is_chance(best.clean_accuracy, images, chance):
        return None
    return (
        f"never left chance: clean accuracy {best.clean_accuracy:.3f} on {images} images, a"
        f" constant prediction has {chance:.3f}; its robust accuracy says nothing"
    )


class TeacherProgress:
    """Lines about teachers: at every fifth of a training, and every ten seconds.

    `chance` is the accuracy of the best constant prediction on the validation images.
    """

    def __init__(self, chance: float | None = None) -> None:
        self._chance = chance
        self._line_at = time.monotonic()

    def update(self, step: "TeacherStep") -> None:
        """Print this step where a line is due."""
        epoch, so_far, measured = step.epoch, step.so_far, step.measured
        if step.skipped:
            self._say(f"{step.role} teacher skipped: no method of this space asks for it")
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
                f" measured, {reached}"
            )
        if measured is not None:
            self._say(
                f"{step.role} teacher {'trained' if step.trained else 'reused'}: "
                f"clean {measured.clean_accuracy:.3f}, robust {measured.robust_accuracy:.3f} "
                f"on {measured.images} {measured.measured_on} (sha256 {measured.sha256[:12]})"
                + (f"; {measured.contents}" if measured.contents else "")
            )
            for warning in (
                teacher_at_chance_line(step.role, measured, self._chance),
                flagged_line(step.role, measured),
            ):
                if warning is not None:
                    self._say(warning)

    @property
    def _due(self) -> bool:
        return time.monotonic() - self._line_at > LINE_EVERY_SECONDS

    def _say(self, text: str) -> None:
        self._line_at = time.monotonic()
        say(text)


class SearchProgress:
    """Progress of a search in this session, and what earlier sessions had finished.

    `chance` is the accuracy of the best constant prediction on the validation images.
    """

    def __init__(self, study: "Study", chance: float | None = None) -> None:
        self._chance = chance
        self._started = time.monotonic()
        self._line_at = 0.0
        self._known = {t.trial_id for t in study.trials.values() if t.status != Status.RUNNING}
        self._epochs_before = {t.trial_id: t.epochs_trained for t in study.trials.values()}
        # When this session's first epochs were known, how many, and the device seconds then: the
        # start of Ray and of its workers says nothing about the pace.
        self._pace_from: tuple[float, int, float] | None = None
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )
        if self._known:
            say(
                f"resuming {study.folder}: {number_of(len(self._known), 'known trial')}, not"
                " repeated"
            )
        if study.retried:
            say(
                "retried from their last epoch, after a failure of the machine:"
                f" {', '.join(sorted(study.retried))}"
            )
        for label, excess in study.feasibility.oversized_baselines().items():
            say(
                f"{label}: its student has {excess.count:,} {excess.heading},"
                f" constraints.{excess.cost} allows {excess.limit:,}: this baseline cannot be"
                " on the front"
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
        """End the live panel."""
        if self._live:
            self._live.stop()

    def update(self, study: "Study") -> None:
        """Print the present state of the study, where a line is due."""
        done = self._epochs_done(study)
        if done and self._pace_from is None:
            self._pace_from = time.monotonic(), done, study.ledger.device_seconds
        if self._live:
            self._live.update(Group(Text(self._headline(study)), front_table(study)))
        elif time.monotonic() - self._line_at > LINE_EVERY_SECONDS:
            self._line_at = time.monotonic()
            say(self._headline(study))

    def finished(self, study: "Study", *, nothing_to_do: bool = False) -> None:
        """Print the end of the search.

        Raises StudyError where every trial has failed, SpaceError where the space has fewer
        configurations than were asked for.
        """
        from rkdsearch.errors import MACHINE_FAILURES
        from rkdsearch.search.feasibility import ExhaustedSpaceError

        self.stop()
        if nothing_to_do:
            say(f"nothing to do: all {len(study.trials)} trials of {study.folder} have ended")
        failed = [t for t in study.trials.values() if t.status == Status.FAILED]
        for trial in failed[:5]:
            say(
                f"{trial.trial_id} failed: {trial.error}"
                + (" (--resume retries it)" if trial.failure in MACHINE_FAILURES else "")
            )
        for trial in study.trials.values():
            best = trial.best if trial.full_length else None
            if best is not None:
                line = chance_line(best, trial.epochs[-1].images, self._chance)
                if line is not None:
                    say(f"{trial.trial_id} {line}")
        console.print(front_table(study))
        say(self._headline(study))
        if len(failed) < len(study.trials) and (why := _why_no_front(study)) is not None:
            say(f"there is no front: {why}")
        if failed and len(failed) == len(study.trials):
            raise StudyError(
                f"{study.folder}: all {len(failed)} trials failed, so there is no front; correct"
                " the causes above, then continue with --resume where the machine was at fault, or"
                " else search a changed space in another folder"
            )
        if isinstance(study.exhausted, ExhaustedSpaceError):
            say(str(study.exhausted))
        elif study.exhausted is not None:
            raise study.exhausted

    def _headline(self, study: "Study") -> str:
        counts = study.counts()
        states = ", ".join(
            f"{counts[s]} {s}"
            for s in (Status.FINISHED, Status.STOPPED, Status.PAUSED, Status.FAILED)
            if counts[s]
        )
        elapsed, waiting = time.monotonic() - self._started, len(study.ledger.waiting)
        of = "" if study.asked_for is None else f" of {study.asked_for}"
        replicates = study.ledger.replicates
        text = (
            f"{elapsed:4.0f} s  {len(study.trials) - len(replicates)}{of} configurations,"
            f" {len(study.ledger.executing) - waiting} running"
        )
        text += f", {waiting} waiting for a place" if waiting else ""
        if replicates:
            ended = sum(t.status != Status.RUNNING for t in replicates)
            text += f", {ended} of {len(replicates)} replicates"
        if study.max_device_seconds is not None:
            spent, most = study.ledger.device_seconds / 3600, study.max_device_seconds / 3600
            text += f", {spent:.2f} of {most:.2f} device hours"
        text += f", {states}" if states else ""
        left = self._left(study)
        return text if left is None else f"{text}; about {duration(left)} left"

    def _epochs_done(self, study: "Study") -> int:
        """Epochs that this session has trained."""
        return sum(
            t.epochs_trained - self._epochs_before.get(t.trial_id, 0) for t in study.trials.values()
        )

    def _left(self, study: "Study") -> float | None:
        """Seconds until the end, at the pace of this session; None where that is not known."""
        if self._pace_from is None or study.done:
            return None
        begun, known, spent_before = self._pace_from
        elapsed, done = time.monotonic() - begun, self._epochs_done(study) - known
        if done < 5:
            return None
        if study.asked_for is not None:
            return epochs_left(study, study.asked_for) * elapsed / done
        spent = study.ledger.device_seconds - spent_before
        if study.max_device_seconds is None or spent <= 0:
            return None
        return max(0.0, study.max_device_seconds - study.ledger.device_seconds) * elapsed / spent


def _why_no_front(study: "Study") -> str | None:
    """Reason why nothing is on the front; None where something is."""
    from rkdsearch.results.study import read_study

    if not any(trial.full_length for trial in study.trials.values()):
        return "no trial has reached full length; continue with --resume and more trials"
    found = read_study(study.folder)
    return found.why_no_front if found.front.empty else None


def front_table(study: "Study") -> Table:
    """The front so far, of full-length trials, and who is kept off it by flags, with the flags."""
    from rkdsearch.evaluation.targets import config_label
    from rkdsearch.search import front

    flagged = [
        f"{t.trial_id} ({', '.join(t.flags)})" for t in study.trials.values() if front.kept_off(t)
    ]
    shown = dict.fromkeys((*USUAL, *study.space.objectives))
    table = Table(
        title=Text(f"front of {study.folder}: validation, full-length trials", "table.title"),
        title_justify="left",
        caption=Text(f"kept off by flags: {', '.join(flagged)}", "table.caption")
        if flagged
        else None,
        caption_justify="left",
        box=None,
    )
    for heading in ("trial", *(OBJECTIVES[name].title for name in shown), "configuration"):
        table.add_column(
            heading,
            justify="left" if heading in ("trial", "configuration") else "right",
            no_wrap=heading != "configuration",  # where the terminal is narrow it has more lines
        )
    for one in front.front(study.trials.values(), study.space):
        label = one.trial.label or config_label(one.trial.config)
        label += " (RECONSTRUCTED)" if one.trial.config.method.reconstructed else ""
        label += (
            f" ({one.failed} of {one.seeds + one.failed} replicates failed)" if one.failed else ""
        )
        table.add_row(
            Text(one.trial.trial_id),
            *(Text(OBJECTIVES[name].shown(one.value(name))) for name in shown),
            Text(label),
        )
    return table
