"""`rkdsearch train`: one run, without Ray."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def train(
    config: Path,
    *overrides: str,
    folder: Path | None = None,
    allow_import: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
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
    allow_import
        Packages of your own from which methods and networks may be imported.
    """
    from rkdsearch import config as run
    from rkdsearch import plugins
    from rkdsearch.cli.overrides import parsed
    from rkdsearch.cli.progress import said
    from rkdsearch.training.allocator import keep_memory
    from rkdsearch.training.run import is_first_process, leave_group, single_run

    keep_memory()
    plugins.allow_import(*allow_import)
    described = run.load(config, parsed(overrides))
    home = folder or Path("runs") / config.stem
    for epoch in single_run(described, home):
        if is_first_process():
            accuracies = "" if epoch.clean_accuracy is None else f"  clean {epoch.clean_accuracy:.3f}  robust {epoch.robust_accuracy:.3f}"
            said(f"epoch {epoch.epoch:3} of {epoch.epochs}  loss {epoch.loss:.4f}{accuracies}  {epoch.images_per_second:.0f} images/s")
    if is_first_process():
        said(f"{home}: best.safetensors, last.safetensors, and the row in trials/")
    leave_group()
