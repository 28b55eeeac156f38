"""Sections of the outer minimisation: `optimizer`, `schedule`, `averaging`, `training`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rkdsearch.config.fields import Share
from rkdsearch.section import Section


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
    """The learning rate over the run.

    All times are fractions of the run, so that a published schedule fits any number of epochs.
    """

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
        if self.name.startswith("multistep") and self.warm_up > min(self.milestones, default=1):
            raise ValueError(
                "the rate must reach its height before a milestone: warm_up must be <="
                f" {self.milestones[0]}, got {self.warm_up}"
            )
        return self


class AveragingConfig(Section):
    """An average of the student's weights, validated and exported in the student's place."""

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
    """The training loop."""

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
            " never those of validation"
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
