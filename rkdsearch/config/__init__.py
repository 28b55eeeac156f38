"""`TrainConfig`: the only description of a run.

Every value has one name, `section.field`: in YAML, Python, Optuna and plots, on the command line,
and in Parquet (`config.section.field`).
"""

from rkdsearch.config.attack import AttackConfig, ValidationAttack, ValidationConfig
from rkdsearch.config.dotted import flatten_tree, merge, nest
from rkdsearch.config.fields import ratio
from rkdsearch.config.reading import build, load, read_yaml
from rkdsearch.config.run import TrainConfig
from rkdsearch.config.sentences import members, sentence, unknown_field
from rkdsearch.config.stored import build_stored, stored_identity
from rkdsearch.config.teachers import Recipe, TeacherConfig, TeachersConfig
from rkdsearch.config.training import (
    AveragingConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from rkdsearch.config.typed import default, typed, typed_leaves
from rkdsearch.config.writing import written

__all__ = [
    "AttackConfig",
    "AveragingConfig",
    "OptimizerConfig",
    "Recipe",
    "ScheduleConfig",
    "TeacherConfig",
    "TeachersConfig",
    "TrainConfig",
    "TrainingConfig",
    "ValidationAttack",
    "ValidationConfig",
    "build",
    "build_stored",
    "default",
    "flatten_tree",
    "load",
    "members",
    "merge",
    "nest",
    "ratio",
    "read_yaml",
    "sentence",
    "stored_identity",
    "typed",
    "typed_leaves",
    "unknown_field",
    "written",
]
