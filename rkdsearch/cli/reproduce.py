"""`rkdsearch reproduce STUDY --trial ID`: train a trial again and compare."""

from itertools import islice
from pathlib import Path

from rkdsearch.cli.options import AllowImport, LocalPath


def reproduce(
    study: LocalPath,
    *,
    trial: str = "run",
    folder: LocalPath | None = None,
    allow_import: AllowImport = (),
) -> None:
    """Train a trial again from its exact configuration, and say whether the network is the same.

    On a CPU with the same versions and threads it is, bit for bit; otherwise the differences are
    listed, and the exit code is 2.

    Parameters
    ----------
    study
        Folder of a study or of a single run (its trial is `run`).
    trial
        Trial, as `rkdsearch status` lists it.
    folder
        Folder of the repeated run; default: reproductions/<study>-<trial>.
    """
    from rkdsearch import plugins
    from rkdsearch.cli.console import say, show_pace
    from rkdsearch.cli.progress import epoch_line, seconds_left
    from rkdsearch.errors import StudyError
    from rkdsearch.search.reproduction import differences, other_conditions, recorded, trainer_of
    from rkdsearch.training.rows import facts_of
    from rkdsearch.training.run import exclusive_folder

    show_pace()
    plugins.allow_import(*allow_import)
    was = recorded(study, trial)
    home = folder or Path("reproductions") / f"{study.resolve().name}-{trial}"
    if study.resolve() in (home.resolve(), *home.resolve().parents):
        raise StudyError(
            f"{home}: is in the folder of the run that is repeated, which would be compared with"
            " itself; name another with --folder"
        )
    with exclusive_folder(was.config, home):
        trainer = trainer_of(was, home)
        say(
            f"{study}, trial {trial}: seed {was.config.training.seed}, images and teachers are the"
            f" same; {len(was.epochs)} epochs in {home}"
        )
        others = list(other_conditions(was, facts_of(trainer)))
        for condition in others:
            say(f"not the same: {condition}")
        left = len(was.epochs) - len(trainer.resume())
        if left <= 0:
            say(
                f"{home} has all of them from an earlier command: nothing is trained, and it is"
                " compared again; name another folder with --folder to train once more"
            )
        for epoch in islice(trainer.epochs(), max(0, left)):
            say(epoch_line(epoch, seconds_left(trainer.history)))
        found = list(differences(was, trainer))
    if found:
        why = "; ".join(others) or (
            "the conditions are the same: does it compute on a GPU, whose sums have no fixed order?"
        )
        lines = "\n".join(f"  {difference}" for difference in found)
        raise StudyError(f"{study}, trial {trial}: the repeated run differs ({why}):\n{lines}")
    say(
        f"the same bit for bit: {len(was.weights)} tensors of the network, and loss and accuracies"
        f" of {len(was.epochs)} epochs"
    )
