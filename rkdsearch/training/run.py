"""A single run, without Ray, which writes the same rows as a trial."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate import PartialState

from rkdsearch import plugins
from rkdsearch.config import TeacherConfig, TrainConfig
from rkdsearch.data import Splits
from rkdsearch.errors import CheckpointError, NonFiniteLossError, OutOfMemoryError, StudyError
from rkdsearch.file_lock import one_writer
from rkdsearch.methods import name_of
from rkdsearch.results.cells import parse
from rkdsearch.results.columns import cells_of
from rkdsearch.results.rows import ALONE, TrialRow
from rkdsearch.results.states import Origin, Status
from rkdsearch.results.store import Store
from rkdsearch.teacher import fingerprint
from rkdsearch.training import config_rows, rows, teacher
from rkdsearch.training.accelerator import accelerator_for
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.trainer import Trainer


def exclusive_folder(
    config: TrainConfig,
    folder: Path,
    way_out: str = "wait for its end, or give this run a folder of its own",
) -> AbstractContextManager[None]:
    """Lock the folder for this run; the first of its processes takes the lock.

    Raises StudyError where another run writes there, or a search has its trials, DiskError where
    the folder cannot be written.
    """
    if (folder / "study.json").exists():
        raise StudyError(
            f"{folder}: is the folder of a search; a single run needs one of its own: name another"
            " with --folder"
        )
    accelerator_for(config)  # forms the process group, so that the first process is known
    return one_writer(folder, "trained in", way_out) if is_first_process() else nullcontext()


def train_teacher(
    made_by: TrainConfig, folder: Path, splits: Splits | None = None
) -> Iterator[EpochResult]:
    """Train a teacher with all processes; yields the epochs that are left to do.

    Raises as `exclusive_folder` does.
    """
    with exclusive_folder(
        made_by, folder, "wait for its end: this run then finds the teacher trained"
    ):
        trainer = Trainer(made_by, folder, splits=splits)
        yield from trainer.epochs()
        # The other processes read the file that the first one writes.
        trainer.accelerator.wait_for_everyone()


def teacher_epochs(
    config: TrainConfig, *caches: Path, splits: Splits | None = None
) -> Iterator[tuple[str, EpochResult]]:
    """Train the teachers that are recipes; yields each epoch that is left to do with its role.

    After the last one, `caches` contain their files. `splits`: as of `Trainer`.
    """
    for role in config.teacher_roles:
        made_by = teacher.recipe_run(config, role)
        if made_by is not None:
            home = teacher.folder_of(made_by, *caches)
            if not teacher.is_trained(made_by, home):
                yield from ((role, epoch) for epoch in train_teacher(made_by, home, splits))


def with_teachers(config: TrainConfig, *caches: Path) -> TrainConfig:
    """The same run with every teacher that it uses named by file and hash.

    Recipes must have been trained before, into one of `caches`.
    """
    ready: dict[str, TeacherConfig] = {}
    for role in config.teacher_roles:
        given = config.teachers.of(role)
        made_by = teacher.recipe_run(config, role)
        if made_by is not None:
            ready[role] = teacher.from_folder(given, teacher.folder_of(made_by, *caches))
        elif given.sha256 is None:  # the hash identifies the run, wherever the file lies
            ready[role] = given.model_copy(update={"sha256": fingerprint(Path(str(given.path)))})
    return config.model_copy(update={"teachers": config.teachers.model_copy(update=ready)})


def changed_packages(folder: Path) -> list[str]:
    """Sentences about packages of the user's that changed since the run in this folder was written.

    For whoever resumes it; none where there is no run.
    """
    return [
        sentence
        for row in Store(folder).trials().to_dict("records")
        for sentence in plugins.changed_packages(parse(row.get("run.packages")))
    ]


def is_first_process() -> bool:
    """True for the one process of a run that prints and writes."""
    return bool(PartialState().is_main_process)


def leave_group() -> None:
    """Destroy the process group; the last call of each process."""
    PartialState().destroy_process_group()


def single_run(trainer: Trainer) -> Iterator[EpochResult]:
    """Train the epochs that are left to do, and write rows into `trials/` and `epochs/` after each.

    Only the first process writes; the caller holds `exclusive_folder`. Raises CheckpointError, and
    leaves the rows as they were, where the folder is another run's or its best network is gone.
    """
    config, folder = trainer.config, trainer.folder
    assert folder is not None
    name = name_of(config.method)
    store = Store(folder, config_rows.columns([name] if "." in name else []))
    facts = rows.facts_of(trainer)

    def write(error: NonFiniteLossError | OutOfMemoryError | None = None) -> None:
        if trainer.rank == 0:
            done = len(trainer.history) == config.training.epochs
            status = Status.FAILED if error else Status.FINISHED if done else Status.RUNNING
            row = TrialRow(
                trial_id=ALONE,
                study=folder.name,
                ordinal=0,
                origin=Origin.BASELINE,
                proposed_by=None,
                label=name,
                status=status,
                error=None if error is None else str(error),
                failure=None if error is None else error.failure,
                reconstructed=config.method.reconstructed is not None,
                asked=None,
                placed=None,
                hyperparameters={},
                notes={},
                metric=rows.metrics(trainer.history),
                fidelity=rows.reached_fidelity(config, trainer.history),
                flags=rows.flags(trainer.history),
                check=rows.checks(trainer.history),
                facts=facts,
                run=rows.single_run_record(config, trainer.history, facts),
            )
            store.write_epochs(ALONE, [cells_of(rows.epoch(e)) for e in trainer.history])
            store.write_trial({**cells_of(row), **config_rows.row(config)})

    trainer.resume()
    best = trainer.history[-1].best if trainer.history else None
    gone = trainer.rank == 0 and best is not None and not (folder / "best.safetensors").exists()
    if trainer.processes > 1:  # all raise together: a process on its own would wait for ever
        gone = bool(trainer.accelerator.reduce(torch.tensor(int(gone), device=trainer.device)))
    if gone and best is not None:
        raise CheckpointError(
            f"{folder / 'best.safetensors'}: is gone, and with it the network of epoch"
            f" {best.epoch}, the best so far; put it back, or delete last.safetensors to train this"
            " run afresh"
        )
    # A killed run may have a checkpoint that its rows lack. A finished row stays: it names the code
    # that made it.
    if trainer.history and store.trials()["status"].tolist() != [Status.FINISHED]:
        write()
    try:
        for epoch in trainer.epochs():
            write()
            yield epoch
    except (NonFiniteLossError, OutOfMemoryError) as error:
        write(error)
        raise
