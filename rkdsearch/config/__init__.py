"""`TrainConfig`: the only description of a run.

Every value has one name, `section.field`, and that name is the same in YAML, in Python, on the
command line, in Optuna, in Parquet (`config.section.field`) and in plots.
"""

from rkdsearch.config.dotted import flatten_tree, merge, nest
from rkdsearch.config.reading import build, load, read_yaml
from rkdsearch.config.sections import (
    AttackConfig,
    AveragingConfig,
    OptimizerConfig,
    Pixels,
    Recipe,
    ScheduleConfig,
    TeacherConfig,
    TeachersConfig,
    TrainConfig,
    TrainingConfig,
    ValidationAttack,
    ValidationConfig,
)
from rkdsearch.config.sentences import members, sentence, unknown_field
from rkdsearch.config.writing import written

__all__ = [
    "AttackConfig",
    "AveragingConfig",
    "OptimizerConfig",
    "Pixels",
    "Recipe",
    "ScheduleConfig",
    "TeacherConfig",
    "TeachersConfig",
    "TrainConfig",
    "TrainingConfig",
    "ValidationAttack",
    "ValidationConfig",
    "build",
    "flatten_tree",
    "load",
    "members",
    "merge",
    "nest",
    "read_yaml",
    "sentence",
    "unknown_field",
    "written",
]
