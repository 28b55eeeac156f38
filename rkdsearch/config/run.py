"""`TrainConfig`, one training run, and the laws between its sections.

Data, networks and methods bring sections of their own: `data.DataConfig`, `models.ModelConfig`, a
method's class.
"""

import hashlib
import json
from typing import Any, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from rkdsearch import methods
from rkdsearch.config.attack import AttackConfig, ValidationConfig, check_start
from rkdsearch.config.fields import MethodField
from rkdsearch.config.teachers import CLAIMS, TeacherConfig, TeachersConfig
from rkdsearch.config.training import (
    AveragingConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from rkdsearch.data.config import PLACES, DataConfig
from rkdsearch.models import ModelConfig
from rkdsearch.section import Section
from rkdsearch.teacher import Role


class TrainConfig(Section):
    """One training run, complete."""

    method: MethodField
    data: DataConfig = Field(default_factory=DataConfig)
    student: ModelConfig = Field(default_factory=ModelConfig)
    teachers: TeachersConfig = Field(default_factory=TeachersConfig)
    attack: AttackConfig = Field(default_factory=AttackConfig)
    validation: ValidationConfig = Field(default_factory=ValidationConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    averaging: AveragingConfig = Field(default_factory=AveragingConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)

    @model_validator(mode="after")
    def _teachers_are_there(self) -> Self:
        for role in self.teacher_roles:
            teacher: TeacherConfig | None = self.teachers.get(role)
            if teacher is None or (teacher.path is None and teacher.recipe is None):
                learns = f"method '{methods.name_of(self.method)}' learns from"
                asker = (
                    learns
                    if role in self.method.teachers()
                    else f"attack.objective '{self.attack.objective}' needs"
                )
                raise ValueError(
                    f"{asker} a {role} teacher, and there is none: set teachers.{role}.path or"
                    f" teachers.{role}.recipe"
                )
        return self

    @model_validator(mode="after")
    def _extra_images_are_mixed_in(self) -> Self:
        share, size = self.data.extra_fraction, self.training.batch_size
        if self.data.extra is not None and not round(size * share):
            raise ValueError(
                f"data.extra_fraction: {share:g} of a batch of {size} is no image; raise it or"
                " training.batch_size"
            )
        return self

    @model_validator(mode="after")
    def _attack_can_leave_its_start(self) -> Self:
        check_start(self.method, self.attack)
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _attack_of_the_paper(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """The method's paper fills in `attack.start` and `attack.batchnorm` where they are null."""
        config = handler(values)
        attack, paper = config.attack, config.method.attack_defaults
        if attack.start is not None and attack.batchnorm is not None:
            return config
        resolved = {
            "start": attack.start or paper.start,
            "batchnorm": attack.batchnorm or paper.batchnorm,
        }
        # recorded as resolved, so that a run stays what it was when a default changes
        return handler({**values, "attack": attack.model_copy(update=resolved)})

    @property
    def teacher_roles(self) -> tuple[Role, ...]:
        """Roles of the teachers that this run needs, for its method or for `attack.objective`."""
        needed = self.method.teachers()
        return (
            (*needed, "robust") if self.attack.needs_teacher and "robust" not in needed else needed
        )

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values: `build(config.to_dict())` is the same config."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """Nested plain values of all that the run's result depends on, wherever its files are.

        A teacher in use is known by its sha256, or by its path where no sha256 is given. Images
        are compared by the split in a checkpoint, so only the data set's name (with `folder:PATH`
        and `parquet:PATH`) counts here. The device does not count.
        """
        values = self.to_dict()
        values["data"] |= {name: DataConfig.model_fields[name].default for name in PLACES}
        values["training"]["device"] = TrainingConfig.model_fields["device"].default
        for role, teacher in values["teachers"].items():
            if role not in self.teacher_roles:
                values["teachers"][role] = None
            elif teacher is not None:
                # has no effect on training, as the claims have none
                del teacher["trained_on"]
                teacher.update(dict.fromkeys(CLAIMS))
                if teacher["sha256"] is not None:
                    teacher["path"] = None
        return values

    def fingerprint(self) -> str:
        """sha256 of `identity`, hexadecimal."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
