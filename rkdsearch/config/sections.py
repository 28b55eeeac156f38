"""Every setting of a run, section by section, and the laws between them. A new setting is a field here, and nothing else.

Data, networks and methods bring sections of their own (`data.DataConfig`, `models.ModelConfig`, a
method's class).
"""

import hashlib
import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializeAsAny,
    model_validator,
)

from rkdsearch import methods
from rkdsearch.attacks import BALLS, Attack, Norm, Start, build_ball
from rkdsearch.data.config import PLACES, DataConfig
from rkdsearch.methods import BatchNormMode, Method, inner
from rkdsearch.models import ModelConfig
from rkdsearch.teacher import Role


def _ratio(value: object) -> object:
    """`8/255` is how the field writes an eps: read it as the number that it is."""
    if (
        isinstance(value, str)
        and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*", value))
        and float(found[2]) > 0
    ):
        return float(found[1]) / float(found[2])
    return value


Pixels = Annotated[float, BeforeValidator(_ratio), Field(gt=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a run's description: frozen, and without room for unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BallConfig(Section):
    """How far an attacked image may be from the clean one."""

    norm: Norm = Field("linf", description="the ball's norm")
    eps: Pixels = Field(
        8 / 255,
        description=(
            "the ball's radius, pixels of [0, 1]; a ratio such as 8/255 is read too; linf: at"
            " most 1"
        ),
    )

    @model_validator(mode="after")
    def _eps_is_in_pixels(self) -> Self:
        ball = BALLS[self.norm]
        if ball.eps_required and "eps" not in self.model_fields_set:
            raise ValueError(f"eps is required: the {ball.title} ball has no default radius")
        if self.eps > ball.largest_eps:
            raise ValueError(f"eps is in pixels of [0, 1]: 8/255 is 0.0314; got {self.eps:g}")
        return self


class AttackConfig(BallConfig):
    """The attack of the training's inner maximisation. A search may change it; the exam never follows."""

    steps: int = Field(10, ge=0, le=1000, description="ascent steps; 0 leaves the start as x'")
    relative_step_size: float = Field(
        0.25, gt=0, le=10, description="step size as a fraction of eps: 2/255 of 8/255 is 0.25"
    )
    start: Start | None = Field(
        None, description="where x' begins; none given: as the method's paper has it"
    )
    batchnorm: BatchNormMode | None = Field(
        None, description="BatchNorm while attacking; none given: as the method's paper has it"
    )
    objective: inner.Name | None = Field(
        None, description="what x' maximises, in place of the method's own inner problem"
    )

    @property
    def asks_teacher(self) -> bool:
        """Whether `objective` asks the robust teacher, whatever the method does."""
        return self.objective in ("teacher_clean", "teacher_adversarial")

    def build(self) -> Attack:
        """The attack that this describes; `start` must have been resolved by `TrainConfig`."""
        assert self.start is not None
        return Attack(
            build_ball(self.norm, self.eps),
            self.steps,
            self.relative_step_size * self.eps,
            self.start,
        )


class ValidationAttack(BallConfig):
    """PGD on the cross-entropy, from a random start: the fixed exam of validation, and the ball of the test."""

    steps: int = Field(20, ge=1, le=1000, description="PGD steps on validation images")
    relative_step_size: float = Field(
        0.25, gt=0, le=10, description="step size as a fraction of eps"
    )
    restarts: int = Field(
        1,
        ge=1,
        le=100,
        description="random starts; an image is robust when it survives all of them",
    )

    def build(self) -> Attack:
        """The attack that this describes."""
        return Attack(
            build_ball(self.norm, self.eps),
            self.steps,
            self.relative_step_size * self.eps,
            "uniform_clipped",
        )


class ValidationConfig(Section):
    """How a run is judged while it trains, on images that it does not train on."""

    attack: ValidationAttack = Field(default_factory=ValidationAttack)
    every: int = Field(
        1,
        ge=1,
        description="epochs between two validations; rungs and the last epoch always validate",
    )
    images: int | None = Field(
        None,
        ge=1,
        description="only so many validation images, of all classes in proportion; null: all",
    )
    select: Literal["mean", "clean_accuracy", "robust_accuracy"] = Field(
        "mean", description="what the best epoch is best in; mean: of both accuracies"
    )


class OptimizerConfig(Section):
    """The outer minimisation."""

    name: Literal["sgd", "adamw"] = Field(
        "sgd", description="adamw: weight decay outside the gradient, second beta 0.999"
    )
    lr: float = Field(0.1, gt=0, le=10, description="initial learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's momentum; AdamW's first beta")
    nesterov: bool = Field(False, description="Nesterov's momentum: sgd with momentum > 0 only")
    weight_decay: float = Field(
        2e-4, ge=0, le=1, description="on all parameters, as the papers have it"
    )
    gradient_clip: float | None = Field(
        None,
        gt=0,
        description=(
            "largest norm of an optimizer's whole gradient: the student's, with companions that"
            " share its optimizer"
        ),
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise ValueError(
                f"nesterov needs sgd with momentum > 0, got {self.name} with momentum"
                f" {self.momentum}"
            )
        return self


class ScheduleConfig(Section):
    """The learning rate over the run. All times are fractions of it, so that a published schedule travels between budgets."""

    name: Literal["multistep", "multistep_once", "cosine", "onecycle", "constant"] = Field(
        "multistep",
        description=(
            "multistep_once drops at the first milestone only, as ARD's and IAD's scripts really"
            " do; cosine and onecycle fall to 0"
        ),
    )
    milestones: tuple[Share, ...] = Field(
        (0.5, 0.75), description="multistep: when the rate is multiplied by `factor`"
    )
    factor: float = Field(
        0.1, gt=0, le=1, description="multistep: what a milestone multiplies the rate by"
    )
    warm_up: float = Field(
        0.0,
        ge=0,
        lt=1,
        description=(
            "fraction of the run in which the rate climbs to `optimizer.lr`, evenly; onecycle: 0"
            " is 0.3"
        ),
    )

    @model_validator(mode="after")
    def _milestones_climb(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase, got {list(self.milestones)}")
        return self


class AveragingConfig(Section):
    """An average of the student's weights, which is then validated and delivered in the student's place."""

    name: Literal["none", "ema", "swa"] = Field(
        "none",
        description=(
            "ema: of all steps, old ones fading; swa: of the ends of the last epochs, evenly"
        ),
    )
    decay: float = Field(
        0.999, ge=0, lt=1, description="ema: the share of the average that a step keeps"
    )
    start: float = Field(
        0.5,
        ge=0,
        lt=1,
        description=(
            "swa: the fraction of the run after which epochs are averaged, the last two at least"
        ),
    )


class TrainingConfig(Section):
    """The loop."""

    epochs: int = Field(200, ge=1, le=100_000, description="passes over the training images")
    batch_size: int = Field(
        128, ge=1, description="images of one optimizer step, over all processes"
    )
    microbatches: int = Field(
        1,
        ge=1,
        description=(
            "parts that a batch is split into, where memory is short; BatchNorm and batch-coupled"
            " methods then see parts"
        ),
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="of weights, batches, augmentation and attacks"
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of the hard-label terms of the outer problem; attacks see plain labels",
    )
    precision: Literal["fp32", "tf32", "bf16", "fp64"] = Field(
        "fp32",
        description=(
            "fp32 is IEEE's, on GPUs too; tf32 (GPUs only) and bf16 change the numbers of training,"
            " never the exam's precision"
        ),
    )
    channels_last: bool = Field(True, description="memory layout; changes the order of sums only")
    batchnorm_across: Literal["averaged", "synchronised"] = Field(
        "averaged",
        description=(
            "BatchNorm over several processes: own statistics, averaged after every epoch; or each"
            " batch's joined statistics (GPUs only)"
        ),
    )
    compile: bool = Field(False, description="torch.compile of the student: pays on long runs")
    device: Literal["auto", "cpu"] = Field(
        "auto", description="auto: the GPU or other accelerator of this machine, where it has one"
    )


def describe_method(method: Method) -> dict[str, Any]:
    """`{"name": "rslad", "temperature": 1.0, ...}`."""
    return {"name": methods.name_of(method), **method.model_dump(mode="json")}


MethodField = Annotated[SerializeAsAny[Method], PlainSerializer(describe_method)]


class Recipe(Section):
    """How to train a teacher, where no file of one is at hand: the sections of a run that are its own. Data and exam are the run's."""

    method: MethodField
    attack: AttackConfig = Field(default_factory=AttackConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    averaging: AveragingConfig = Field(default_factory=AveragingConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)

    @model_validator(mode="after")
    def _teachers_have_no_teachers(self) -> Self:
        if asked := self.method.teachers():
            name = methods.name_of(self.method)
            raise ValueError(
                f"a teacher is trained without a teacher, and method '{name}' asks a {asked[0]}"
                " one: choose pgd_at or trades"
            )
        if self.attack.asks_teacher:
            raise ValueError(
                "a teacher is trained without a teacher, and attack.objective"
                f" '{self.attack.objective}' asks one: choose label"
            )
        return self


class TeacherConfig(Section):
    """A frozen network to learn from: a file of weights, or a recipe to make one."""

    network: ModelConfig = Field(default_factory=ModelConfig)
    path: str | None = Field(None, description=".safetensors, .pt or .pth")
    sha256: str | None = Field(None, description="what the file must hash to, hexadecimal")
    clean_accuracy: Share | None = Field(
        None,
        description=(
            "what its publisher claims, as a fraction of 1; `teacher verify` and `tune` check it"
        ),
    )
    robust_accuracy: Share | None = Field(None, description="the same, inside the exam's ball")
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

    @model_validator(mode="after")
    def _file_before_recipe(self) -> Self:
        """A file that is there is the teacher; how to make another one is then no part of the run."""
        if self.path is not None and self.recipe is not None:
            object.__setattr__(self, "recipe", None)
        return self


class TeachersConfig(Section):
    """The teachers, by the role that methods know them in."""

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


class TrainConfig(Section):
    """One training run, whole: data, networks, method, attack, exam, optimizer, schedule, averaging, loop."""

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
        for role in self.asked_teachers:
            teacher: TeacherConfig | None = self.teachers.get(role)
            if teacher is None or (teacher.path is None and teacher.recipe is None):
                learns = f"method '{methods.name_of(self.method)}' learns from"
                asker = (
                    learns
                    if role in self.method.teachers()
                    else f"attack.objective '{self.attack.objective}' asks"
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
    def _attack_of_the_paper(self) -> Self:
        """Where the config is silent about start and BatchNorm, the method's paper speaks; the resolved value is what is recorded."""
        paper = self.method.attack_defaults
        if self.attack.start is None or self.attack.batchnorm is None:
            spoken = {
                "start": self.attack.start or paper.start,
                "batchnorm": self.attack.batchnorm or paper.batchnorm,
            }
            object.__setattr__(self, "attack", self.attack.model_copy(update=spoken))
        return self

    @property
    def asked_teachers(self) -> tuple[Role, ...]:
        """The roles of the teachers that this run asks: its method's, and the robust one where `attack.objective` asks it."""
        asked = self.method.teachers()
        return (*asked, "robust") if self.attack.asks_teacher and "robust" not in asked else asked

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values: `build(config.to_dict())` is the same config."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """Nested plain values, of all that the run depends on: the same for the same run on any machine, wherever its files lie.

        A teacher that is asked is its sha256, or, where none is given, its path. `folder:PATH` and
        `parquet:PATH` are names: two of them may agree in everything else. What the images are, a
        checkpoint's split says. A run may move to another device.
        """
        values = self.to_dict()
        values["data"] |= {name: DataConfig.model_fields[name].default for name in PLACES}
        values["training"]["device"] = TrainingConfig.model_fields["device"].default
        for role, teacher in values["teachers"].items():
            if role not in self.asked_teachers:
                values["teachers"][role] = None
            elif teacher is not None:
                del teacher["trained_on"]  # what is said of a teacher's past trains nobody
                if teacher["sha256"] is not None:
                    teacher["path"] = None
        return values

    def fingerprint(self) -> str:
        """sha256 of `identity`, hexadecimal."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
