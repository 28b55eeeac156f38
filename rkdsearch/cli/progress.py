"""What a person sees while a search runs: a live panel on a terminal, a plain line now and then elsewhere."""

import statistics
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rkdsearch.search.folder import TeacherStep
    from rkdsearch.search.study import Study
    from rkdsearch.training.trainer import EpochResult

LINE_EVERY_SECONDS = 10.0
_console = Console(highlight=False, soft_wrap=True)


def said(text: str) -> None:
    """One line."""
    _console.print(text, markup=False)


def epoch_line(epoch: "EpochResult") -> str:
    """How a run alone gets on."""
    accuracies = "" if epoch.clean_accuracy is None else f"  clean {epoch.clean_accuracy:.3f}  robust {epoch.robust_accuracy:.3f}"
    return f"epoch {epoch.epoch:3} of {epoch.epochs}  loss {epoch.loss:.4f}{accuracies}  {epoch.images_per_second:.0f} images/s"


def teacher_line(step: "TeacherStep") -> None:
    """How a teacher gets on."""
    epoch, measured = step.epoch, step.measured
    if step.skipped:
        said(f"{step.role} teacher skipped: no method of this space asks it")
    if epoch is not None and epoch.clean_accuracy is not None and epoch.epoch % max(1, epoch.epochs // 5) == 0:
        said(
            f"{step.role} teacher: epoch {epoch.epoch} of {epoch.epochs}, clean {epoch.clean_accuracy:.3f}, robust {epoch.robust_accuracy:.3f}"
        )
    if measured is not None:
        how = "reused" if step.reused else "trained"
        said(
            f"{step.role} teacher {how}: clean {measured.clean_accuracy:.3f}, robust {measured.robust_accuracy:.3f} "
            f"on {measured.images} {measured.measured_on} (sha256 {measured.sha256[:12]})"
        )


class SearchProgress:
    """Listens to a study; also knows what it skipped."""

    def __init__(self, study: "Study") -> None:
        self._started = time.monotonic()
        self._line_at = 0.0
        self._known = {t.trial_id for t in study.trials.values() if t.status in ("finished", "stopped", "paused", "failed")}
        self._epochs_before = {t.trial_id: t.trained for t in study.trials.values()}
        self._seconds_before = study.device_seconds
        self._live = Live(console=_console, refresh_per_second=4, transient=True) if _console.is_terminal else None
        if self._known:
            said(f"taking up {study.folder}: {len(self._known)} trials are known already and are not repeated")

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
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
        """The last word."""
        self.stop()
        if nothing_to_do:
            said(f"nothing to do: all {len(study.trials)} trials of {study.folder} were finished before")
        failed = [t for t in study.trials.values() if t.status == "failed"]
        for trial in failed[:5]:
            said(f"{trial.trial_id} failed: {trial.error}")
        _console.print(front_table(study))
        said(self._headline(study))

    def _headline(self, study: "Study") -> str:
        counts = study.counts()
        states = ", ".join(f"{counts[s]} {s}" for s in ("finished", "stopped", "paused", "failed") if counts.get(s))
        elapsed = time.monotonic() - self._started
        of = "" if study.wanted is None else f" of {study.wanted}"
        repeats = [t for t in study.trials.values() if t.origin == "replicate"]
        text = f"{elapsed:4.0f} s  {len(study.trials) - len(repeats)}{of} asked, {len(study.executing)} running"
        text += f", {sum(t.status != 'running' for t in repeats)} of {len(repeats)} repeats with fresh seeds" if repeats else ""
        if study.budget is not None:
            text += f", {study.device_seconds / 3600:.2f} of {study.budget / 3600:.2f} device hours"
        text += f", {states}" if states else ""
        left = self._left(study)
        return text if left is None else f"{text}; about {left:.0f} s left"

    def _left(self, study: "Study") -> float | None:
        """Epochs still expected, at the pace of this session. Who will be promoted is not known: a mean of what happened so far."""
        done_now = sum(t.trained - self._epochs_before.get(t.trial_id, 0) for t in study.trials.values())
        elapsed = time.monotonic() - self._started
        ended = [t.trained for t in study.trials.values() if not t.executing and t.origin == "search"]
        if done_now < 5 or study.done:
            return None
        if study.wanted is None:
            spent = study.device_seconds - self._seconds_before
            return None if study.budget is None or spent <= 0 else max(0.0, study.budget - study.device_seconds) * elapsed / spent
        repeats = [t for t in study.trials.values() if t.origin == "replicate"]
        asked = len(study.trials) - len(repeats)
        to_come = study.space.replicates.seeds * study.space.replicates.contenders
        repeats_left = sum(t.status == "running" and not t.executing for t in repeats) if repeats else to_come
        first_left = sum(sum(leg.end for leg in t.legs) - t.trained for t in study.executing if t.origin != "search")
        to_ask = study.wanted - asked
        first_unasked = max(0, min(len(study.space.first), study.wanted) - asked)
        typical = statistics.mean(ended) if len(ended) >= 3 else study.space.epochs / 2
        running = sum(max(1.0, typical - t.trained) for t in study.executing if t.origin == "search")
        epochs = first_left + running + (first_unasked + repeats_left) * study.space.epochs + (to_ask - first_unasked) * typical
        return epochs * elapsed / done_now


def front_table(study: "Study") -> Table:
    """The best front so far, of full-length trials."""
    from rkdsearch.results.pareto import non_dominated
    from rkdsearch.search.exam import config_label

    table = Table(title=f"front of {study.folder}: validation, full-length trials", title_justify="left", box=None)
    for heading in ("trial", "clean", "robust", "what"):
        table.add_column(heading, justify="left" if heading in ("trial", "what") else "right", no_wrap=True)
    judged = study.judged()
    on_front = non_dominated([[clean, robust] for _, clean, robust in judged])
    for trial, clean, robust in sorted((entry for entry, on in zip(judged, on_front, strict=True) if on), key=lambda entry: -entry[1]):
        mark = " (RECONSTRUCTED)" if trial.config.method.reconstructed else ""
        what = (trial.label or config_label(trial.config)) + mark
        table.add_row(trial.trial_id, f"{clean:.3f}", f"{robust:.3f}", what)
    return table
