"""`rkdsearch export STUDY --trial ID`: a trial's best network as files to publish."""

from pathlib import Path

from rkdsearch.cli.options import AllowImport, LocalPath


def export(
    study: LocalPath,
    *,
    trial: str | None = None,
    out: LocalPath | None = None,
    onnx: bool = False,
    allow_import: AllowImport = (),
) -> tuple[Path, ...]:
    """Write a trial's best weights, a model card, a RobustBench-style entry and the run's YAML.

    Parameters
    ----------
    study
        Folder of a study or of a single run (its trial is `run`), or a best.safetensors in it.
    trial
        Trial, as `rkdsearch status` lists it.
    out
        Folder to write; default: exports/<study>-<trial>.
    onnx
        Write an ONNX file too, and compare its output; needs rkdsearch[export].
    """
    from rkdsearch import plugins
    from rkdsearch.cli.console import say
    from rkdsearch.exporting.trial import export_trial

    plugins.allow_import(*allow_import)
    study, trial, weights = _source(study, trial)
    home = out or Path("exports") / f"{study.resolve().name}-{trial}"
    files = export_trial(study, trial, weights, home, onnx=onnx)
    for file in files:
        say(str(file))
    return files


def _source(named: Path, trial: str | None) -> tuple[Path, str, Path]:
    """The study's folder, the trial, and its best weights.

    A single run, made by `rkdsearch train`, has its weights in the folder itself.
    """
    from rkdsearch.errors import CheckpointError, StudyError
    from rkdsearch.search import ledger

    if not named.exists():
        raise StudyError(
            f"{named}: is not there; name a study's folder, that of a single run, or a trial's"
            " best.safetensors in one of them"
        )

    study, home = named, named.resolve().parent
    if named.is_file():
        if named.name != "best.safetensors":
            raise StudyError(
                f"{named}: must be a trial's best.safetensors, in the folder of its study or of its"
                " single run; a card tells how its network was trained, so no other file of weights"
                " can be exported"
            )
        searched = home.parent.name == "checkpoints"
        of = home.name if searched else "run"
        if trial not in (None, of):
            raise StudyError(
                f"{named}: is the file of the trial '{of}', got --trial {trial}; name the study's"
                " folder, or leave --trial out"
            )
        study, trial = (home.parents[1] if searched else home), of
    alone = study / "best.safetensors"
    is_single = any((study / file).exists() for file in ("last.safetensors", "trials/run.parquet"))
    if trial in (None, "run") and is_single and not alone.exists():
        raise CheckpointError(
            f"{alone}: is not there: it was removed, or the run has validated no epoch yet; let"
            " `rkdsearch train` continue in this folder, put the file back, or delete"
            " last.safetensors and train again"
        )
    if trial is None and not alone.exists():
        raise StudyError(
            f"{study}: holds trials; name one with --trial: `rkdsearch status {study}` lists them"
        )
    if trial in (None, "run") and alone.exists():
        return study, "run", alone
    return study, str(trial), ledger.folder_of(study, str(trial)) / "best.safetensors"
