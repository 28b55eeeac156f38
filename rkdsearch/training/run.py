"""One run alone, without Ray: the same row as a trial's."""

from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState

from rkdsearch.config import TeacherConfig, TrainConfig
from rkdsearch.errors import CheckpointError, NonFiniteLossError, OutOfMemoryError
from rkdsearch.methods import name_of
from rkdsearch.results.record import ALONE
from rkdsearch.results.store import Store
from rkdsearch.teacher import fingerprint
from rkdsearch.training import config_rows, rows, teacher
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.trainer import Trainer


def with_teachers(config: TrainConfig, cache: Path) -> TrainConfig:
    """The same run with its recipes' teachers trained (once, cached), and all that it asks named by file and hash."""
    ready: dict[str, TeacherConfig] = {}
    for role in config.asked_teachers:
        given = getattr(config.teachers, role)
        made_by = teacher.recipe_run(config, role)  # type: ignore[arg-type]  # a role of TeachersConfig
        if made_by is not None:
            home = teacher.folder_of(made_by, cache)
            trainer = Trainer(made_by, home)
            for _ in trainer.epochs():
                pass
            # All processes train it together; the first one writes the file that the others read next.
            trainer.accelerator.wait_for_everyone()
            ready[role] = teacher.from_folder(given, home)
        elif given.sha256 is None:  # with it, the run is the same one wherever the file lies
            ready[role] = given.model_copy(update={"sha256": fingerprint(Path(given.path))})
    return config.model_copy(update={"teachers": config.teachers.model_copy(update=ready)})


def is_first_process() -> bool:
    """Whether this process speaks and writes for all; alone, it does."""
    return bool(PartialState().is_main_process)


def leave_group() -> None:
    """What each of several processes does last."""
    PartialState().destroy_process_group()


def single_run(config: TrainConfig, folder: Path) -> Iterator[EpochResult]:
    """The epochs that are left to do in `folder`; rows in its `trials/` and `epochs/` after each. Only the first process writes."""
    config = with_teachers(config, folder / "teachers")
    trainer = Trainer(config, folder)
    name = name_of(config.method)
    store = Store(folder, config_rows.columns([name] if "." in name else []))
    facts = rows.facts_of(trainer)
    identity = {"trial_id": ALONE, "study": folder.name, "ordinal": 0, "origin": "first", "label": name, "sampled": {}, "notes": {}}

    def write(status: str, error: str | None = None) -> None:
        if trainer.rank == 0:
            store.write_epochs(ALONE, [rows.epoch(e) for e in trainer.history])
            measured = rows.measured(config, trainer.history, facts)
            store.write_trial({**identity, "status": status, "error": error, **config_rows.row(config), **measured})

    try:
        for epoch in trainer.epochs():
            write("finished" if epoch.epoch == epoch.epochs else "running")
            yield epoch
    except (NonFiniteLossError, OutOfMemoryError, CheckpointError) as error:
        write("failed", str(error))
        raise
