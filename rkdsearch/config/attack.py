"""Sections `attack` and `validation`: the training attack, and validation with its own attack."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rkdsearch import methods
from rkdsearch.attacks import BALLS, Attack, MarginAttack, Norm, Start, build_ball
from rkdsearch.config.fields import Pixels
from rkdsearch.methods import BatchNormMode, inner
from rkdsearch.section import Section


class BallConfig(Section):
    """The ball that attacked images stay in, around the clean image."""

    norm: Norm = Field("linf", description="the ball's norm")
    eps: Pixels = Field(
        8 / 255,
        description=(
            "the ball's radius, pixels of [0, 1]; a ratio such as 8/255 is read too; linf: at"
            " most 1; l2: must be given, because a sensible radius grows with the image"
        ),
    )

    @model_validator(mode="after")
    def _eps_is_in_pixels(self) -> Self:
        ball = BALLS[self.norm]
        if ball.eps_required and "eps" not in self.model_fields_set:
            raise ValueError(
                f"eps is required where norm is {self.norm}: 8/255 is a radius of linf, and the"
                f" {ball.title} ball has no default; set it (papers take 128/255 for 32x32 images)"
            )
        if self.eps > ball.largest_eps:
            raise ValueError(f"eps is in pixels of [0, 1]: 8/255 is 0.0314; got {self.eps:g}")
        return self


class AttackConfig(BallConfig):
    """The attack of the training's inner maximisation.

    A search may change it, but not the validation attack.
    """

    steps: int = Field(
        10, ge=0, le=1000, description="ascent steps; 0: x' is the start, moved into the ball"
    )
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
    def needs_teacher(self) -> bool:
        """True where `objective` needs the robust teacher, whatever the method needs."""
        return self.objective in ("teacher_clean", "teacher_adversarial")

    def build(self) -> Attack:
        """The attack itself; `TrainConfig` has resolved `start`."""
        assert self.start is not None
        return Attack(
            build_ball(self.norm, self.eps),
            self.steps,
            self.relative_step_size * self.eps,
            self.start,
        )


def flat_start(method: str) -> str:
    """Sentence about an attack that begins where its gradient is 0."""
    return (
        "attack.start must not be 'none' here: x' begins at x, and what it maximises (method"
        f" '{method}' or attack.objective) compares the student with itself there: its gradient is"
        " 0, and no image would ever move; choose gaussian, uniform or uniform_clipped"
    )


def check_start(method: methods.Method, attack: AttackConfig) -> None:
    """Raise ValueError where the attack begins at x and its gradient there is known to be 0.

    A method whose paper begins at x makes no attack, or knows why.
    """
    flat = method.flat_at_x if attack.objective is None else attack.objective == "student_clean"
    if (
        flat
        and attack.start == "none"
        and attack.steps > 0
        and method.attack_defaults.start != "none"
    ):
        raise ValueError(flat_start(methods.name_of(method)))


class ValidationAttack(BallConfig):
    """The validation attack, from a random start in the ball.

    A search never changes it. Test evaluation attacks inside the same ball.
    """

    objective: Literal["margin", "cross_entropy"] = Field(
        "margin",
        description=(
            "what x' maximises. margin: the lead of the other classes, whatever the scale of the"
            " logits, by steps that fall from eps to 0; cross_entropy: the papers' PGD, which"
            " large logits mislead"
        ),
    )
    steps: int = Field(20, ge=1, le=1000, description="attack steps on validation images")
    relative_step_size: float | None = Field(
        None,
        gt=0,
        le=10,
        description="cross_entropy: step size as a fraction of eps, 0.25 unless given",
    )
    restarts: int = Field(
        1,
        ge=1,
        le=100,
        description="random starts; an image is robust when it survives all of them",
    )

    @model_validator(mode="before")
    @classmethod
    def _step_size_of_the_objective(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        given = values.get("relative_step_size")
        if values.get("objective", "margin") == "cross_entropy":
            return {**values, "relative_step_size": 0.25 if given is None else given}
        if given is not None:
            raise ValueError(
                "relative_step_size is used where objective is cross_entropy, and objective is"
                f" margin, whose steps fall from eps to 0; leave it out (got {given})"
            )
        return values

    def build(self) -> Attack | MarginAttack:
        """The attack itself."""
        ball = build_ball(self.norm, self.eps)
        if self.objective == "margin":
            return MarginAttack(ball, self.steps)
        assert self.relative_step_size is not None, "the validator has filled it in"
        step_size = self.relative_step_size * self.eps
        return Attack(ball, self.steps, step_size, "uniform_clipped")

    @property
    def title(self) -> str:
        """Its name for people: `margin-10`, `PGD-10`."""
        return f"{'margin' if self.objective == 'margin' else 'PGD'}-{self.steps}"


class ValidationConfig(Section):
    """Validation while a run trains, on images that it is not trained on."""

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
        "mean", description="the score that selects the best epoch; mean: of both accuracies"
    )
