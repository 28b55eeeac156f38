"""`rkdsearch export STUDY --trial ID`: a trial's best network, to be given away."""

from pathlib import Path

from rkdsearch.cli.options import AllowImport


def export(
    study: Path,
    *,
    trial: str,
    out: Path | None = None,
    onnx: bool = False,
    allow_import: AllowImport = (),
) -> None:
    """Write a trial's best weights as safetensors, with a model card and a RobustBench-style entry. Nothing is trained or measured.

    Parameters
    ----------
    study
        The study's folder, or that of a single run (its trial is called `run`).
    trial
        The trial, as `rkdsearch status` lists it.
    out
        The folder to write into; by default exports/<study>-<trial>.
    onnx
        Also an ONNX file; needs rkdsearch[export].
    """
    from rkdsearch import plugins
    from rkdsearch.cli.progress import said
    from rkdsearch.search import ledger
    from rkdsearch.training.export import export as delivered

    plugins.allow_import(*allow_import)
    searched = ledger.folder_of(study, trial) / "best.safetensors"
    alone = study / "best.safetensors"  # `rkdsearch train` keeps its one run in the folder itself
    home = out or Path("exports") / f"{study.resolve().name}-{trial}"
    for file in delivered(study, trial, alone if trial == "run" and alone.exists() else searched, home, onnx=onnx):
        said(str(file))
