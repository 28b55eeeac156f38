"""`rkdsearch train`: one training run, without Ray."""

from pathlib import Path
from typing import TYPE_CHECKING

from rkdsearch.cli.options import AllowImport, LocalPath

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkdsearch.training.epoch import Best
    from rkdsearch.training.trainer import Trainer


def train(
    config: LocalPath,
    *overrides: str,
    folder: LocalPath | None = None,
    allow_import: AllowImport = (),
) -> None:
    """Train one run. Started again with the same folder, it continues from its last epoch.

    Parameters
    ----------
    config
        YAML file of the run.
    overrides
        Values laid over the file, such as optimizer.lr=0.05 attack.eps=8/255.
    folder
        Folder of checkpoints and rows; default: runs/<name of the file>.
    """
    from rkdsearch import config as run
    from rkdsearch import data, plugins
    from rkdsearch.cli.console import say, show_pace
    from rkdsearch.cli.options import parsed
    from rkdsearch.cli.progress import epoch_line, ready_line, seconds_left
    from rkdsearch.cli.teacher import CACHE
    from rkdsearch.config.unread import unread_settings
    from rkdsearch.training.allocator import keep_memory
    from rkdsearch.training.run import (
        changed_packages,
        exclusive_folder,
        is_first_process,
        leave_group,
        single_run,
        teacher_epochs,
        with_teachers,
    )
    from rkdsearch.training.student import try_student
    from rkdsearch.training.trainer import Trainer

    keep_memory()
    show_pace()
    plugins.allow_import(*allow_import)
    described = run.load(config, parsed(overrides))
    home = folder or Path("runs") / config.stem
    caches = home / "teachers", CACHE.absolute()  # the second is that of `rkdsearch teacher train`
    with exclusive_folder(described, home):
        try_student(described)
        notices = [*unread_settings(described), *filter(None, [data.check_test(described.data)])]
        for notice in notices if is_first_process() else ():
            say(notice)
        for role, epoch in teacher_epochs(described, *caches):
            if is_first_process():
                say(f"{role} teacher: {epoch_line(epoch)}")
        trainer = Trainer(with_teachers(described, *caches), home)
        epochs = trainer.config.training.epochs
        speaks = is_first_process()
        left = epochs - len(trainer.resume())
        if speaks:
            for changed in changed_packages(home) if left else ():
                say(f"{home}: {changed}")
            say(ready_line(trainer) if left else f"nothing left to do: {epochs} epochs are trained")
        for epoch in single_run(trainer):
            if speaks:
                say(epoch_line(epoch, seconds_left(trainer.history)))
        if speaks:
            best = trainer.history[-1].best
            assert best is not None  # the last epoch is always validated
            say(
                f"best epoch {best.epoch}: clean {best.clean_accuracy:.3f}, robust"
                f" {best.robust_accuracy:.3f}"
            )
            for line in _doubts(trainer, best):
                say(line)
            say(f"{home}: best.safetensors, last.safetensors, and the row in trials/")
    leave_group()


def _doubts(trainer: "Trainer", best: "Best") -> "Iterator[str]":
    """Lines about why the run's accuracies may not be what they seem."""
    from rkdsearch.cli.progress import chance_line
    from rkdsearch.results.flags import sentence
    from rkdsearch.training import rows

    for flag in rows.flags(trainer.history) or ():
        yield f"FLAG {sentence(flag)}"
    line = chance_line(best, trainer.history[-1].images, trainer.splits.chance)
    if line is not None:
        yield f"WARNING: this student {line}"
