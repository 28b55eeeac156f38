"""`TrainConfig`: the only description of a run.

Every value has one name, `section.field`, and that name is the same in YAML, in Python, on the command line, in Optuna, in Parquet
(`config.section.field`) and in plots. Sections belong to the components that they configure (`data.DataConfig`, `models.ModelConfig`,
a method's own class); the rest stands here.
"""

import difflib
import hashlib
import json
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, SerializeAsAny, ValidationError, model_validator

from rkdsearch import methods
from rkdsearch.attacks import Attack, Norm, Start, build_ball
from rkdsearch.data import DataConfig
from rkdsearch.errors import ConfigError
from rkdsearch.methods import Method, inner
from rkdsearch.methods.base import BatchNormMode
from rkdsearch.models import ModelConfig


def _ratio(value: object) -> object:
    """`8/255` is how the field writes an eps: read it as the number that it is."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*", value)) and float(found[2]) > 0:
        return float(found[1]) / float(found[2])
    return value


Pixels = Annotated[float, BeforeValidator(_ratio), Field(gt=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a run's description: frozen, and without room for unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AttackConfig(Section):
    """The attack of the training's inner maximisation. A search may change it; the exam never follows."""

    norm: Norm = Field("linf", description="the ball's norm")
    eps: Pixels = Field(8 / 255, description="the ball's radius, pixels of [0, 1]")
    steps: int = Field(10, ge=0, le=1000, description="ascent steps; 0 leaves the start as x'")
    relative_step_size: float = Field(0.25, gt=0, le=10, description="step size as a fraction of eps: 2/255 of 8/255 is 0.25")
    start: Start | None = Field(None, description="where x' begins; none given: as the method's paper has it")
    batchnorm: BatchNormMode | None = Field(None, description="BatchNorm while attacking; none given: as the method's paper has it")
    objective: inner.Name | None = Field(None, description="what x' maximises, in place of the method's own inner problem")

    @property
    def asks_teacher(self) -> bool:
        """Whether `objective` asks the robust teacher, whatever the method does."""
        return self.objective in ("teacher_clean", "teacher_adversarial")

    def build(self) -> Attack:
        """The attack that this describes; `start` must have been resolved by `TrainConfig`."""
        assert self.start is not None
        return Attack(build_ball(self.norm, self.eps), self.steps, self.relative_step_size * self.eps, self.start)


class ExamAttack(Section):
    """PGD on the cross-entropy, from a random start: the fixed exam of validation, and the ball of the test."""

    norm: Norm = Field("linf", description="the threat model's norm")
    eps: Pixels = Field(8 / 255, description="the threat model's radius, pixels of [0, 1]")
    steps: int = Field(20, ge=1, le=1000, description="PGD steps on validation images")
    relative_step_size: float = Field(0.25, gt=0, le=10, description="step size as a fraction of eps")
    restarts: int = Field(1, ge=1, le=100, description="random starts; an image is robust when it survives all of them")

    def build(self) -> Attack:
        """The attack that this describes."""
        return Attack(build_ball(self.norm, self.eps), self.steps, self.relative_step_size * self.eps, "uniform_clipped")


class ValidationConfig(Section):
    """How a run is judged while it trains, on images that it does not train on."""

    attack: ExamAttack = Field(default_factory=ExamAttack)
    every: int = Field(1, ge=1, description="epochs between two validations; rungs and the last epoch always validate")
    images: int | None = Field(None, ge=1, description="only the first so many validation images")
    select: Literal["mean", "clean_accuracy", "robust_accuracy"] = Field("mean", description="what the best epoch is best in")


class OptimizerConfig(Section):
    """The outer minimisation."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0, le=10, description="initial learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's momentum; AdamW's first beta")
    nesterov: bool = False
    weight_decay: float = Field(2e-4, ge=0, le=1, description="on all parameters, as the papers have it")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the whole gradient")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise ValueError(f"nesterov needs sgd with momentum > 0, got {self.name} with momentum {self.momentum}")
        return self


class ScheduleConfig(Section):
    """The learning rate over the run. All times are fractions of it, so that a published schedule travels between budgets."""

    name: Literal["multistep", "multistep_once", "cosine", "onecycle", "constant"] = Field(
        "multistep", description="multistep_once drops at the first milestone only, as ARD's and IAD's scripts really do"
    )
    milestones: tuple[Share, ...] = Field((0.5, 0.75), description="multistep: when the rate is multiplied by `factor`")
    factor: float = Field(0.1, gt=0, le=1, description="multistep: what a milestone multiplies the rate by")
    warm_up: float = Field(0.0, ge=0, lt=1, description="linear warm-up; onecycle: the fraction of the run that climbs")

    @model_validator(mode="after")
    def _milestones_climb(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase, got {list(self.milestones)}")
        return self


class AveragingConfig(Section):
    """An average of the student's weights, which is then validated and delivered in the student's place."""

    name: Literal["none", "ema", "swa"] = "none"
    decay: float = Field(0.999, ge=0, lt=1, description="ema: what a step keeps")
    start: float = Field(0.5, ge=0, lt=1, description="swa: the fraction of the run after which epochs are averaged")


class TrainingConfig(Section):
    """The loop."""

    epochs: int = Field(200, ge=1, le=100_000)
    batch_size: int = Field(128, ge=1, description="images of one optimizer step, over all processes")
    microbatches: int = Field(
        1, ge=1, description="parts that a batch is split into, where memory is short; batch-coupled methods then see parts"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, batches, augmentation and attacks")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of the hard-label terms of the outer problem; attacks see plain labels")
    precision: Literal["fp32", "bf16", "fp64"] = Field("fp32", description="bf16 changes the numbers")
    channels_last: bool = Field(True, description="memory layout; changes the order of sums only")
    batchnorm_across: Literal["averaged", "synchronised"] = Field(
        "averaged",
        description="BatchNorm over several processes: own statistics, averaged after every epoch; or each batch's joined statistics (GPUs only)",
    )
    compile: bool = Field(False, description="torch.compile of the student: pays on long runs")
    device: Literal["auto", "cpu"] = "auto"


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
            raise ValueError(f"a teacher is trained without a teacher, and method '{name}' asks a {asked[0]} one: choose pgd_at or trades")
        if self.attack.asks_teacher:
            raise ValueError(
                f"a teacher is trained without a teacher, and attack.objective '{self.attack.objective}' asks one: choose label"
            )
        return self


class TeacherConfig(Section):
    """A frozen network to learn from: a file of weights, or a recipe to make one."""

    network: ModelConfig = Field(default_factory=ModelConfig)
    path: str | None = Field(None, description=".safetensors, .pt or .pth")
    sha256: str | None = Field(None, description="what the file must hash to")
    clean_accuracy: Share | None = Field(None, description="what its publisher claims, to be verified")
    robust_accuracy: Share | None = Field(None, description="what its publisher claims at the exam's ball, to be verified")
    trained_on: Literal["train", "other"] | None = Field(
        None,
        description="train: all training images of this data, as published teachers were, with others or not; other: none of these images; "
        "none given: what the file itself says",
    )
    recipe: Recipe | None = Field(None, description="trained once and cached, where no path is given")

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
            teacher: TeacherConfig | None = getattr(self.teachers, role)
            if teacher is None or (teacher.path is None and teacher.recipe is None):
                learns = f"method '{methods.name_of(self.method)}' learns from"
                asker = learns if role in self.method.teachers() else f"attack.objective '{self.attack.objective}' asks"
                raise ValueError(f"{asker} a {role} teacher, and there is none: set teachers.{role}.path or teachers.{role}.recipe")
        return self

    @model_validator(mode="after")
    def _attack_of_the_paper(self) -> Self:
        """Where the config is silent about start and BatchNorm, the method's paper speaks; the resolved value is what is recorded."""
        paper = self.method.attack_defaults
        if self.attack.start is None or self.attack.batchnorm is None:
            spoken = {"start": self.attack.start or paper.start, "batchnorm": self.attack.batchnorm or paper.batchnorm}
            object.__setattr__(self, "attack", self.attack.model_copy(update=spoken))
        return self

    @property
    def asked_teachers(self) -> tuple[str, ...]:
        """The roles of the teachers that this run asks: its method's, and the robust one where `attack.objective` asks it."""
        asked = self.method.teachers()
        return (*asked, "robust") if self.attack.asks_teacher and "robust" not in asked else asked

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values: `build(config.to_dict())` is the same config."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        """sha256 of all values that the run depends on, hexadecimal: the same for the same run on any machine."""
        values = self.to_dict()
        for teacher in values["teachers"].values():
            if teacher is not None:
                del teacher["trained_on"]  # what is said of a teacher's past trains nobody
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------- building


def build(values: Mapping[str, Any], place: str = "config") -> TrainConfig:
    """A checked config from nested or dotted names. Raises ConfigError: `place: field must ..., got ...`."""
    tree = nest(values, place)
    tree["method"] = _build_method(tree.get("method"), place, "method")
    teachers = tree.get("teachers")
    for role, teacher in teachers.items() if isinstance(teachers, dict) else ():
        if isinstance(teacher, dict) and isinstance(teacher.get("recipe"), dict):
            where = f"teachers.{role}.recipe.method"
            recipe = {**teacher["recipe"], "method": _build_method(teacher["recipe"].get("method"), place, where)}
            tree["teachers"] = {**tree["teachers"], role: {**teacher, "recipe": recipe}}
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(sentence(error, TrainConfig, place)) from None


def load(file: Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """A config from a YAML file, with `section.field` overrides on top."""
    return build(merge(read_yaml(file), overrides or {}, str(file)), str(file))


def read_yaml(file: Path) -> dict[str, Any]:
    """A mapping from a YAML file; no tags, no code. Raises ConfigError."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{file}: is a folder, not a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: must hold names and values, got {type(values).__name__}")
    return values


def nest(values: Mapping[str, Any], place: str = "config") -> dict[str, Any]:
    """`{"method.name": "rslad", "data": {"name": "digits"}}` as one tree. A name given twice is an error."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = str(name).split(".")
        here = tree
        for section in sections:
            here = here.setdefault(section, {})
            if not isinstance(here, dict):
                raise ConfigError(f"{place}: {name} needs a section '{section}', which already holds the value {here!r}")
        if isinstance(value, Mapping):
            child = here.setdefault(last, {})
            if not isinstance(child, dict):
                raise ConfigError(f"{place}: {name} is given twice, as {child!r} and as a section")
            for key, leaf in flatten_tree(nest(value, place)).items():
                _put(child, key, leaf, f"{name}.{key}", place)
        else:
            _put(here, last, value, str(name), place)
    return tree


def _put(tree: dict[str, Any], key: str, value: object, name: str, place: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{place}: {name} needs a section '{section}', which already holds the value {tree!r}")
    if last in tree and tree[last] != value:
        raise ConfigError(f"{place}: {name} is given twice, as {tree[last]!r} and as {value!r}")
    tree[last] = value


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any], place: str = "config") -> dict[str, Any]:
    """`overrides` over `base`, leaf by leaf; null takes a whole section away.

    Another `*.name` begins its section afresh: the old one's fields are not the new one's.
    """
    below, above = flatten_tree(nest(base, place)), flatten_tree(nest(overrides, place))
    for name, value in above.items():
        section = name.removesuffix(".name")
        if section != name and below.get(name, value) != value:
            below = {k: v for k, v in below.items() if not k.startswith(section + ".")}
        if value is None:
            below = {k: v for k, v in below.items() if not k.startswith(name + ".")}
        below = {k: v for k, v in below.items() if v is not None or not name.startswith(k + ".")}
    return nest({**below, **above}, place)


def flatten_tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names of all leaves; an empty section is no leaf."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten_tree(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _build_method(section: object, place: str, where: str) -> Method:
    if isinstance(section, Method):
        return section
    if not isinstance(section, dict) or "name" not in section:
        raise ConfigError(f"{place}: {where}.name is required; choose one of {', '.join(methods.names())}")
    try:
        kind = methods.load(str(section["name"]))
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
    try:
        return kind.model_validate({k: v for k, v in section.items() if k != "name"})
    except ValidationError as error:
        raise ConfigError(sentence(error, kind, place, where + ".")) from None


# ------------------------------------------------------------------------------------------------------------------ errors


def sentence(error: ValidationError, kind: type[BaseModel], place: str, prefix: str = "") -> str:
    """pydantic's first complaint as `place: field law, got value; way out`."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    name = prefix + ".".join(path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path[-1], _fields_at(kind, path[:-1]), n=1)
        way_out = f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(sorted(_fields_at(kind, path[:-1])))}"
        return f"{place}: unknown field {name}{way_out}{more}"
    if first["type"] == "missing":
        return f"{place}: {name} is required{more}"
    law = first["msg"].removeprefix("Value error, ")
    law = re.sub(r"^Input should be ", "must be ", law)
    for words, sign in {"greater than or equal to": ">=", "less than or equal to": "<=", "greater than": ">", "less than": "<"}.items():
        law = law.replace(words, sign)
    if first["type"] == "value_error" and not path:
        return f"{place}: {law}{more}"
    if first["type"] == "value_error":
        return f"{place}: {name}: {law}{more}"
    return f"{place}: {name} {law}, got {first['input']!r}{more}"


def _fields_at(kind: type[BaseModel], path: Iterable[str]) -> list[str]:
    """The field names of the section that `path` leads to."""
    for part in path:
        field = kind.model_fields.get(part)
        inside = next((t for t in members(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)), None) if field else None
        if inside is None:
            return []
        kind = inside
    return list(kind.model_fields)


def members(annotation: object) -> tuple[Any, ...]:
    """`X | None` is X and None; `Annotated[X, ...]` is X."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for a in get_args(annotation) for m in members(a))
    return (annotation,)
