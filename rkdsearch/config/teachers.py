"""Section `teachers`: the frozen networks that a run learns from, and how to train one."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, model_validator

from rkdsearch import methods
from rkdsearch.config.attack import AttackConfig, check_start
from rkdsearch.config.fields import SHA256, MethodField, Share
from rkdsearch.config.training import (
    AveragingConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from rkdsearch.local_path import home_path_text
from rkdsearch.models import ModelConfig
from rkdsearch.section import Section
from rkdsearch.teacher import Role

# What a teacher's publisher says of it: checked before a run, and without effect on it.
CLAIMS = ("clean_accuracy", "robust_accuracy")


class Recipe(Section):
    """Training of a teacher that has no file. Data and validation are the run's."""

    method: MethodField
    attack: AttackConfig = Field(default_factory=AttackConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    averaging: AveragingConfig = Field(default_factory=AveragingConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)

    @model_validator(mode="after")
    def _teachers_have_no_teachers(self) -> Self:
        if needed := self.method.teachers():
            name = methods.name_of(self.method)
            raise ValueError(
                f"a teacher is trained without a teacher, and method '{name}' needs a {needed[0]}"
                " one: choose pgd_at or trades"
            )
        if self.attack.needs_teacher:
            raise ValueError(
                "a teacher is trained without a teacher, and attack.objective"
                f" '{self.attack.objective}' needs one: choose label"
            )
        return self

    @model_validator(mode="after")
    def _attack_can_leave_its_start(self) -> Self:
        check_start(self.method, self.attack)
        return self


class TeacherConfig(Section):
    """A frozen network to learn from: a file of weights, or a recipe to make one."""

    network: ModelConfig = Field(default_factory=ModelConfig)
    path: Annotated[str, AfterValidator(home_path_text)] | None = Field(
        None, description=".safetensors, .pt or .pth"
    )
    sha256: SHA256 | None = Field(
        None, description="sha256 of the file, hexadecimal; another file is refused"
    )
    key: str | None = Field(
        None,
        description=(
            "entry of the file that holds the weights, by dotted path (`state_dict_ema`), or the"
            " prefix of their names (`student`); null: the usual one, which `teacher verify` names"
        ),
    )
    ignore: tuple[str, ...] = Field(
        (),
        description="entries of the file that begin so are spare, such as a second head (`head2.`)",
    )
    clean_accuracy: Share | None = Field(
        None,
        description=(
            "its publisher's claim, as a fraction of 1; `teacher verify` and `tune` check it"
        ),
    )
    robust_accuracy: Share | None = Field(
        None, description="the same, inside the validation attack's ball"
    )
    trained_on: Literal["train", "other"] | None = Field(
        None,
        description=(
            "train: all training images of this data, as published teachers were, with others or"
            " not; other: none of these images; none given: what the file itself says"
        ),
    )
    recipe: Recipe | None = Field(
        None, description="trained once and cached, where no path is given"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _file_before_recipe(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """A recipe is dropped where there is a file: it is then no part of the run."""
        teacher = handler(values)
        if teacher.path is None or teacher.recipe is None:
            return teacher
        return handler({**values, "recipe": None})


class TeachersConfig(Section):
    """The teachers, by role."""

    robust: TeacherConfig | None = None
    natural: TeacherConfig | None = None

    def get(self, role: Role) -> TeacherConfig | None:
        """The teacher in this role, or None where the run has none."""
        return self.robust if role == "robust" else self.natural

    def of(self, role: Role) -> TeacherConfig:
        """The teacher in this role, which the run must have."""
        found = self.get(role)
        assert found is not None, f"the run has no {role} teacher"
        return found
