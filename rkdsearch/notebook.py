"""The commands as functions, for a notebook or a script: they print as commands do.

`rkdsearch.tune(...)` is `rkdsearch tune ...`. Paths may be texts. Each returns what it has made;
where a command would end with one sentence, it raises an RkdError with that sentence.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rkdsearch.arguments import checked
from rkdsearch.local_path import local_path
from rkdsearch.results.states import EvaluationAttack

if TYPE_CHECKING:
    import pandas as pd

    from rkdsearch.results.study import StudyResults

Place = str | PathLike[str]


@checked
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
    from rkdsearch.accuracy import kept_settings
    from rkdsearch.cli import tune as command
    from rkdsearch.results.study import read_study

    with kept_settings():
        command.tune(
            local_path(space),
            study=local_path(study),
            trials=trials,
            device_hours=device_hours,
            resume=resume,
            warm_start=None if warm_start is None else local_path(warm_start),
            journal=journal,
            address=address,
        )
    return read_study(local_path(study))


@checked
def evaluate(
    study: Place,
    *overrides: str,
    front: bool = False,
    trial: str | None = None,
    methods: Literal["best"] | None = None,
    replicates: bool = True,
    config: Place | None = None,
    attacks: Sequence[EvaluationAttack] = ("clean", "pgd20", "autoattack"),
    eps: Sequence[str | float] = (),
    norm: Literal["linf", "l2"] | None = None,
    attack_seeds: int = 1,
    images: int | None = None,
    data: str | None = None,
    severity: Sequence[int] = (),
    out: Place | None = None,
    local: bool = False,
    gpu: float | None = None,
    address: str | None = None,
) -> "pd.DataFrame":
    """Evaluate networks on test images; returns all evaluations of the study, as a table.

    `front` takes the validation front and the baselines, `methods="best"` the best student of every
    method, `trial` one trial, none of them all finished ones. `images` is the number of test
    images (all), `local` needs no Ray. `rkdsearch evaluate --help` explains the others. What has
    been evaluated before is not repeated.
    """
    from rkdsearch.accuracy import kept_settings
    from rkdsearch.cli import evaluate as command
    from rkdsearch.results.study import read_study

    with kept_settings():
        folder = command.evaluate(
            local_path(study),
            *overrides,
            front=front,
            trial=trial,
            methods=methods,
            replicates=replicates,
            config=None if config is None else local_path(config),
            attacks=tuple(attacks),
            eps=tuple(map(str, eps)),
            norm=norm,
            attack_seeds=attack_seeds,
            images=images,
            data=data,
            severity=tuple(severity),
            out=None if out is None else local_path(out),
            local=local,
            gpu=gpu,
            address=address,
        )
    return read_study(folder).evaluations


@checked
def report(study: Place, *, out: Place | None = None) -> Path:
    """Write an offline HTML page about a study to `out`, or to its own `report.html`."""
    from rkdsearch.cli import report as command

    return command.report(local_path(study), out=None if out is None else local_path(out))


@checked
def export(
    study: Place, *, trial: str | None = None, out: Place | None = None, onnx: bool = False
) -> tuple[Path, ...]:
    """Write a trial's weights, model card, RobustBench entry and run; returns the files.

    `study` may be the folder of a single run, which needs no `trial`.
    """
    from rkdsearch.cli import export as command

    return command.export(
        local_path(study), trial=trial, out=None if out is None else local_path(out), onnx=onnx
    )
