import pytest

from rkdsearch.config import AttackConfig, ValidationAttack, ValidationConfig
from rkdsearch.config.fidelity import Fidelity, fidelity_at


def test_an_epoch_belongs_to_the_first_fidelity_that_it_does_not_pass() -> None:
    fidelities = (Fidelity(epochs=2, training_attack_steps=2), Fidelity(epochs=5))
    assert [fidelity_at(fidelities, epoch).epochs for epoch in (1, 2, 3, 5)] == [2, 2, 5, 5]
    assert fidelity_at((), 7) == Fidelity(epochs=7)


def test_a_capped_attack_takes_longer_steps_that_reach_as_far_but_none_longer_than_eps() -> None:
    attack = AttackConfig(eps=0.1, steps=10, relative_step_size=0.25)
    assert (
        Fidelity(epochs=1, training_attack_steps=5).attack(attack).steps,
        Fidelity(epochs=1, training_attack_steps=5).attack(attack).relative_step_size,
    ) == (5, 0.5)
    assert (
        Fidelity(epochs=1, training_attack_steps=2).attack(attack).steps,
        Fidelity(epochs=1, training_attack_steps=2).attack(attack).relative_step_size,
    ) == (2, 1.0)
    assert (
        Fidelity(epochs=1, training_attack_steps=10).attack(attack)
        == Fidelity(epochs=1).attack(attack)
        == attack
    )
    longer = attack.model_copy(update={"relative_step_size": 2.0})
    assert Fidelity(epochs=1, training_attack_steps=2).attack(longer).relative_step_size == 2.0


def test_a_fidelity_may_validate_by_a_shorter_attack_on_fewer_images() -> None:
    validation = ValidationConfig(
        attack=ValidationAttack(objective="cross_entropy", steps=20, relative_step_size=0.1),
        images=50,
    )
    lower = Fidelity(epochs=1, validation_attack_steps=10, validation_images=30).validation(
        validation
    )
    assert (lower.attack.steps, lower.attack.relative_step_size, lower.images) == (10, 0.2, 30)
    assert Fidelity(epochs=1, validation_images=80).validation(validation).images == 50
    assert Fidelity(epochs=1, training_attack_steps=3).validation(validation) == validation


@pytest.mark.parametrize(
    ("caps", "same"),
    [
        # the run has 20 steps on 50 images: these caps change nothing
        ({"validation_attack_steps": 20, "validation_images": 50}, True),
        ({"validation_attack_steps": 30}, True),
        ({"training_attack_steps": 1}, True),
        ({"validation_attack_steps": 19}, False),
        ({"validation_images": 49}, False),
    ],
)
def test_accuracies_are_compared_where_the_caps_of_two_rungs_do_the_same(
    caps: dict[str, int], same: bool
) -> None:
    validation = ValidationConfig(attack=ValidationAttack(steps=20), images=50)
    rung, whole = Fidelity(epochs=1, **caps), Fidelity(epochs=2)
    assert rung.same_validation(whole, validation) == same
