"""Each law catches a method that breaks it."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import ClassVar

import pytest
from torch import Tensor
from typing_extensions import override

from rkdsearch import methods
from rkdsearch.attacks import Linf, Projection
from rkdsearch.errors import ConfigError
from rkdsearch.losses import cross_entropy
from rkdsearch.methods import AttackDefaults, Loss, Method, Step
from tests.methods import test_contract as contract


class Plain(Method):
    """Adversarial training; each child breaks one law."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(start="uniform_clipped")

    def objective(self, step: Step, x: Tensor) -> Tensor:
        return cross_entropy(step.student(x), step.y)

    @override
    def loss(self, step: Step) -> Loss:
        return Loss.weighted(
            label=(1.0, self.objective(step, step.maximize(lambda x: self.objective(step, x))))
        )


class Attached(Plain):
    @override
    def loss(self, step: Step) -> Loss:
        total = super().loss(step).total
        return Loss(total, {"label": total})


class Headless(Plain):
    @override
    def objective(self, step: Step, x: Tensor) -> Tensor:
        return step.features(step.student, x).penultimate.square().mean(dim=1)


class Teaching(Plain):
    @override
    def loss(self, step: Step) -> Loss:
        step.teacher.network.train()
        step.teacher(step.x)
        return super().loss(step)


class Watching(Plain):
    @override
    def loss(self, step: Step) -> Loss:
        # outside `step.attacking()`
        x_adv = step.attack.maximize(lambda x: self.objective(step, x), step.x, step.noise)
        return Loss.weighted(label=(1.0, self.objective(step, x_adv)))


class Forgetful(Plain):
    @override
    def loss(self, step: Step) -> Loss:
        step.student.network.eval()
        return super().loss(step)


class Escaping(Plain):
    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.attack.projection_around(step.x + 0.5)(step.x + 1)
        return Loss.weighted(label=(1.0, self.objective(step, x_adv)))


class Straying(Linf):
    """Seven steps outside, and then back."""

    @override
    def projection_around(self, x: Tensor) -> Projection:
        back, done = super().projection_around(x), count(1)
        return lambda x_adv: back(x_adv) if next(done) > 7 else x_adv


class Returning(Plain):
    @override
    def loss(self, step: Step) -> Loss:
        return super().loss(
            replace(step, attack=replace(step.attack, ball=Straying(step.attack.ball.eps)))
        )


class Scaled(Plain):
    kl_scale: float = 1.0

    @override
    def objective(self, step: Step, x: Tensor) -> Tensor:
        return self.kl_scale * super().objective(step, x)


class Rising(Plain):
    @override
    def loss(self, step: Step) -> Loss:
        value = self.objective(step, step.x).mean()
        # its descent is the value's ascent
        return Loss(2 * value.detach() - value, {"label": value.detach()})


class Narrow(Plain):
    @override
    def objective(self, step: Step, x: Tensor) -> Tensor:
        return super().objective(step, x).float()


class Normalised(Plain):
    @override
    def objective(self, step: Step, x: Tensor) -> Tensor:
        values = super().objective(step, x)
        return values / values.detach().std()  # of a single sample: NaN


@pytest.mark.parametrize(
    ("law", "broken"),
    [
        (contract.test_the_loss_is_one_finite_number_made_of_detached_terms, Attached),
        (
            contract.test_the_loss_reaches_every_weight_of_the_student_and_of_its_companions,
            Headless,
        ),
        (contract.test_teachers_are_left_as_they_were_without_gradients, Teaching),
        (contract.test_an_attack_in_eval_mode_does_not_move_batchnorm_statistics, Watching),
        (contract.test_attacked_images_stay_in_the_ball_and_in_the_pixel_range, Escaping),
        (contract.test_attacked_images_stay_in_the_ball_and_in_the_pixel_range, Returning),
        (contract.test_the_loss_falls_within_ten_steps_on_a_fixed_batch, Rising),
        (contract.test_double_precision_is_never_lost, Narrow),
    ],
)
def test_a_law_for_every_setting_can_fail(
    law: Callable[[Method], None], broken: type[Method]
) -> None:
    law(Plain())
    with pytest.raises(AssertionError):
        law(broken())


def test_a_law_for_every_method_can_fail() -> None:
    contract.test_the_student_is_handed_back_in_train_mode_with_trainable_weights(Plain, "eval")
    with pytest.raises(AssertionError):
        contract.test_the_student_is_handed_back_in_train_mode_with_trainable_weights(
            Forgetful, "eval"
        )
    with pytest.raises(AssertionError):
        contract.test_kl_scale_is_a_weight_and_no_part_of_a_reported_term(Scaled)
    contract.test_the_last_batch_of_an_epoch_may_be_of_any_size(Plain, 1)
    with pytest.raises(AssertionError), pytest.warns(UserWarning, match="degrees of freedom"):
        contract.test_the_last_batch_of_an_epoch_may_be_of_any_size(Normalised, 1)


def test_a_method_of_a_strangers_is_imported_only_where_allowed() -> None:
    with pytest.raises(
        ConfigError, match="would import code; allow it with --allow-import elsewhere"
    ):
        methods.load("elsewhere.soft_at")
    methods.allow_import("tests.methods")
    assert methods.load("tests.methods.uncoupled").__name__ == "Uncoupled"
