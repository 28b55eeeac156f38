"""One run alone, without Ray: the same row as a trial's."""

from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState

from rkdsearch.config import TeacherConfig, TrainConfig
from rkdsearch.errors import NonFiniteLossError, OutOfMemoryError
from rkdsearch.methods import name_of
from rkdsearch.results.record import ALONE
from rkdsearch.results.store import Store
from rkdsearch.teacher import fingerprint
from rkdsearch.training import config_rows, rows, teacher
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.trainer import Trainer


def teacher_epochs(config: TrainConfig, *caches: Path) -> Iterator[tuple[str, EpochResult]]:
    """The epochs that are left to do of the teachers that are recipes, each with its role; behind the last one, `caches` have their files."""
    for role in config.asked_teachers:
        made_by = teacher.recipe_run(config, role)  # type: ignore[arg-type]  # a role of TeachersConfig
        if made_by is not None:
            trainer = Trainer(made_by, teacher.folder_of(made_by, *caches))
            for epoch in trainer.epochs():
                yield role, epoch
            # All processes train it together; the first one writes the file that the others read next.
            trainer.accelerator.wait_for_everyone()


def with_teachers(config: TrainConfig, *caches: Path) -> TrainConfig:
    """The same run with all teachers that it asks named by file and hash; what is a recipe was trained before, and is in one of `caches`."""
    ready: dict[str, TeacherConfig] = {}
    for role in config.asked_teachers:
        given = getattr(config.teachers, role)
        made_by = teacher.recipe_run(config, role)  # type: ignore[arg-type]  # a role of TeachersConfig
        if made_by is not None:
            ready[role] = teacher.from_folder(given, teacher.folder_of(made_by, *caches))
        elif given.sha256 is None:  # with it, the run is the same one wherever the file lies
            ready[role] = given.model_copy(update={"sha256": fingerprint(Path(given.path))})
    return config.model_copy(update={"teachers": config.teachers.model_copy(update=ready)})


def is_first_process() -> bool:
    """Whether this process speaks and writes for all; alone, it does."""
    return bool(PartialState().is_main_process)


def leave_group() -> None:
    """What each of several processes does last."""
    PartialState().destroy_process_group()


def single_run(trainer: Trainer) -> Iterator[EpochResult]:
    """The epochs that are left to do; rows in the folder's `trials/` and `epochs/` after each. Only the first process writes.

    Raises CheckpointError, and leaves the rows as they were, where the folder is another run's.
    """
    config, folder = trainer.config, trainer.folder
    assert folder is not None
    name = name_of(config.method)
    store = Store(folder, config_rows.columns([name] if "." in name else []))
    facts = rows.facts_of(trainer)
    identity = {"trial_id": ALONE, "study": folder.name, "ordinal": 0, "origin": "first", "label": name, "sampled": {}, "notes": {}}

    def write(error: str | None = None) -> None:
        if trainer.rank == 0:
            done = len(trainer.history) == config.training.epochs
            status = "failed" if error else "finished" if done else "running"
            store.write_epochs(ALONE, [rows.epoch(e) for e in trainer.history])
            measured = rows.measured(config, trainer.history, facts)
            store.write_trial({**identity, "status": status, "error": error, **config_rows.row(config), **measured})

    # A run that was killed may have a checkpoint of which its rows know nothing. A finished row stays: it says which code made it.
    if trainer.resume() and store.trials()["status"].tolist() != ["finished"]:
        write()
    try:
        for epoch in trainer.epochs():
            write()
            yield epoch
    except (NonFiniteLossError, OutOfMemoryError) as error:
        write(str(error))
        raise
