"""rkdsearch finds small networks that are accurate and robust.

The public names are imported on first use, so that `import rkdsearch` costs neither torch nor Ray.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkdsearch import losses as losses
    from rkdsearch.accuracy import evaluate_accuracy as evaluate_accuracy
    from rkdsearch.config import TrainConfig as TrainConfig
    from rkdsearch.config import build, load
    from rkdsearch.data import splits_of as splits_of
    from rkdsearch.data import write_images as write_images
    from rkdsearch.errors import RkdError as RkdError
    from rkdsearch.methods import Companion as Companion
    from rkdsearch.methods import Loss as Loss
    from rkdsearch.methods import Method as Method
    from rkdsearch.methods import Step as Step
    from rkdsearch.methods import inner as inner
    from rkdsearch.notebook import evaluate as evaluate
    from rkdsearch.notebook import export as export
    from rkdsearch.notebook import report as report
    from rkdsearch.notebook import tune as tune
    from rkdsearch.plugins import allow_import as allow_import
    from rkdsearch.reporting.drawing import draw_front as draw_front
    from rkdsearch.results.store import Store as Store
    from rkdsearch.results.study import StudyResults as StudyResults
    from rkdsearch.results.study import read_study as read_study
    from rkdsearch.space.space import SearchSpace as SearchSpace
    from rkdsearch.training.epoch import EpochResult as EpochResult
    from rkdsearch.training.run import teacher_epochs as teacher_epochs
    from rkdsearch.training.run import with_teachers as with_teachers
    from rkdsearch.training.trainer import Trainer as Trainer

    build_config, load_config = build, load
    __version__: str

# A public name's module, and the name there; without a name, the module itself.
_WHERE = {
    "Companion": "methods:Companion",
    "EpochResult": "training.epoch:EpochResult",
    "Loss": "methods:Loss",
    "Method": "methods:Method",
    "RkdError": "errors:RkdError",
    "SearchSpace": "space.space:SearchSpace",
    "Step": "methods:Step",
    "Store": "results.store:Store",
    "StudyResults": "results.study:StudyResults",
    "TrainConfig": "config:TrainConfig",
    "Trainer": "training.trainer:Trainer",
    "allow_import": "plugins:allow_import",
    "build_config": "config:build",
    "draw_front": "reporting.drawing:draw_front",
    "evaluate": "notebook:evaluate",
    "evaluate_accuracy": "accuracy:evaluate_accuracy",
    "export": "notebook:export",
    "inner": "methods.inner:",
    "load_config": "config:load",
    "losses": "losses:",
    "read_study": "results.study:read_study",
    "report": "notebook:report",
    "splits_of": "data:splits_of",
    "teacher_epochs": "training.run:teacher_epochs",
    "tune": "notebook:tune",
    "with_teachers": "training.run:with_teachers",
    "write_images": "data:write_images",
}

__all__ = list(_WHERE)

if (
    not TYPE_CHECKING
):  # a type checker reads the imports above: a name that is not there is an error

    def __getattr__(name: str) -> object:
        import importlib

        if name == "__version__":
            from importlib.metadata import version

            return version("rkdsearch")
        if name not in _WHERE:
            from rkdsearch.errors import did_you_mean

            known = [known for known in __dir__() if not known.startswith("_")]
            hint = did_you_mean(name, known, f"there are {', '.join(known)}")
            # Without `obj`, or Python's traceback would add a suggestion of its own.
            raise AttributeError(f"rkdsearch has no '{name}'; {hint}", name=name, obj=None)
        module, _, member = _WHERE[name].partition(":")
        found = importlib.import_module(f"rkdsearch.{module}")
        return getattr(found, member) if member else found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_WHERE, "__version__"} - {"TYPE_CHECKING"})
