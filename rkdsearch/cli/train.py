"""`rkdsearch train`: one run, without Ray."""

from pathlib import Path

from rkdsearch.cli.options import AllowImport


def train(
    config: Path,
    *overrides: str,
    folder: Path | None = None,
    allow_import: AllowImport = (),
) -> None:
    """One training run; started again with the same folder, it goes on from its last epoch.

    Parameters
    ----------
    config
        A YAML file of a run's fields.
    overrides
        section.field=value, such as optimizer.lr=0.05 attack.eps=8/255.
    folder
        Where checkpoints and the row go; by default runs/<name of the file>.
    """
    from rkdsearch import config as run
    from rkdsearch import plugins
    from rkdsearch.cli.options import parsed
    from rkdsearch.cli.progress import epoch_line, said
    from rkdsearch.training.allocator import keep_memory
    from rkdsearch.training.run import is_first_process, leave_group, single_run

    keep_memory()
    plugins.allow_import(*allow_import)
    described = run.load(config, parsed(overrides))
    home = folder or Path("runs") / config.stem
    for epoch in single_run(described, home):
        if is_first_process():
            said(epoch_line(epoch))
    if is_first_process():
        said(f"{home}: best.safetensors, last.safetensors, and the row in trials/")
    leave_group()
