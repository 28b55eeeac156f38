"""The commands as functions, for a notebook or a script: they print as commands do.

`rkdsearch.tune(...)` is `rkdsearch tune ...`. Paths may be texts. Each returns what it has made;
where a command would end with one sentence, it raises an RkdError with that sentence.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from rkdsearch.results.states import EvaluationAttack

if TYPE_CHECKING:
    import pandas as pd

    from rkdsearch.results.study import StudyResults

Place = str | PathLike[str]


def tune(
    space: Place,
    study: Place,
    *,
    trials: int | None = None,
    device_hours: float | None = None,
    resume: bool = False,
    warm_start: Place | None = None,
    journal: bool = True,
    address: str | None = None,
) -> "StudyResults":
    """Search a space for the front; returns the study's results, of which `.front` is a table.

    `space` is a YAML file, or a name such as `rkdsearch:digits`; `study` the folder of the
    results. Exactly one of `trials` (configurations) and `device_hours` ends the search. With
    `resume` a study in the folder continues. An interrupt (Ctrl-C) loses no finished epoch.
    """
    from rkdsearch.cli import tune as command
    from rkdsearch.results.study import read_study

    command.tune(
        Path(space),
        study=Path(study),
        trials=trials,
        device_hours=device_hours,
        resume=resume,
        warm_start=None if warm_start is None else Path(warm_start),
        journal=journal,
        address=address,
    )
    return read_study(Path(study))


def evaluate(
    study: Place,
    *,
    front: bool = False,
    trial: str | None = None,
    seeds: int = 1,
    images: int | None = None,
    attacks: Sequence[EvaluationAttack] = ("clean", "pgd20", "autoattack"),
    gpu: float | None = None,
    address: str | None = None,
) -> "pd.DataFrame":
    """Evaluate finished networks on test images; returns all test results of the study.

    `front` takes the validation front and the baselines, `trial` one trial, neither all finished
    ones. `images` is the number of test images (all), `seeds` that of each attack's seeds, `gpu`
    a worker's share of a GPU. What has been evaluated before is not repeated.
    """
    from rkdsearch.cli import evaluate as command
    from rkdsearch.results.study import read_study

    command.evaluate(
        Path(study),
        front=front,
        trial=trial,
        seeds=seeds,
        images=images,
        attacks=tuple(attacks),
        gpu=gpu,
        address=address,
    )
    return read_study(Path(study)).tests


def report(study: Place, *, out: Place | None = None) -> Path:
    """Write an offline HTML page about a study to `out`, or to its own `report.html`."""
    from rkdsearch.cli import report as command

    return command.report(Path(study), out=None if out is None else Path(out))


def export(
    study: Place, *, trial: str | None = None, out: Place | None = None, onnx: bool = False
) -> tuple[Path, ...]:
    """Write a trial's weights, model card, RobustBench entry and run; returns the files.

    `study` may be the folder of a single run, which needs no `trial`.
    """
    from rkdsearch.cli import export as command

    return command.export(
        Path(study), trial=trial, out=None if out is None else Path(out), onnx=onnx
    )
