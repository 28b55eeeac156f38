"""Fidelity: a search trains many runs at low fidelity before it trains a few in full."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import Field

from rkdsearch.config.attack import AttackConfig, ValidationAttack, ValidationConfig
from rkdsearch.section import Section

_Attack = TypeVar("_Attack", AttackConfig, ValidationAttack)


class Fidelity(Section):
    """Training and validation of the epochs up to `epochs`, which is always validated.

    A cap that is None leaves the run's config as it is.
    """

    epochs: int = Field(ge=1, description="epochs from the start of the run")
    training_attack_steps: int | None = Field(
        None, ge=1, description="cap on the training attack's steps; none: as searched"
    )
    validation_attack_steps: int | None = Field(
        None, ge=1, description="cap on the validation attack's steps; none: as the run has them"
    )
    validation_images: int | None = Field(
        None, ge=1, description="cap on the validation images, of all classes; none: all"
    )

    def attack(self, config: AttackConfig) -> AttackConfig:
        """The training attack at this fidelity."""
        return _capped(config, self.training_attack_steps)

    def validation(self, config: ValidationConfig) -> ValidationConfig:
        """The validation at this fidelity."""
        images = self.validation_images
        if images is not None and config.images is not None:
            images = min(images, config.images)
        return config.model_copy(
            update={
                "attack": _capped(config.attack, self.validation_attack_steps),
                "images": config.images if images is None else images,
            }
        )

    def same_validation(
        self, other: "Fidelity", config: ValidationConfig, available: int | None = None
    ) -> bool:
        """True where both validate this run alike: only then can their accuracies be compared.

        Of no more images than are `available`.
        """

        def alike(fidelity: "Fidelity") -> ValidationConfig:
            found = fidelity.validation(config)
            whole = available is not None and (found.images or available) >= available
            return found.model_copy(update={"images": None}) if whole else found

        return alike(self) == alike(other)


def fidelity_at(fidelities: Sequence[Fidelity], epoch: int) -> Fidelity:
    """The fidelity of this epoch (from 1); after the last one, the config's own."""
    found = next((fidelity for fidelity in fidelities if epoch <= fidelity.epochs), None)
    return found or Fidelity(epochs=max(epoch, 1))


def _capped(attack: _Attack, steps: int | None) -> _Attack:
    """The attack with at most `steps` steps, each longer by the same ratio, but at most eps."""
    if steps is None or attack.steps <= steps:
        return attack
    length = attack.relative_step_size
    if length is not None:  # the margin attack's first step has the length of eps in any case
        # a weaker attack must still reach as far as the uncapped one
        length = max(length, min(1.0, length * attack.steps / steps))
    return attack.model_copy(update={"steps": steps, "relative_step_size": length})
