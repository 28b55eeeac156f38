"""How faithfully a stretch of a run is trained and judged: a search looks at many runs cheaply before it trains a few in full."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rkdsearch.config import AttackConfig, ValidationAttack, ValidationConfig

_Attack = TypeVar("_Attack", AttackConfig, ValidationAttack)


@dataclass(frozen=True)
class Fidelity:
    """The epochs up to and with `until`, which is validated. What is None is as the run's config has it.

    `attack_steps` caps the training attack's steps, `validation_steps` the exam's,
    `validation_images` its images.
    """

    until: int
    attack_steps: int | None = None
    validation_steps: int | None = None
    validation_images: int | None = None

    def attack(self, config: AttackConfig) -> AttackConfig:
        """The training attack of this stage."""
        return _capped(config, self.attack_steps)

    def validation(self, config: ValidationConfig) -> ValidationConfig:
        """How epochs of this stage are judged."""
        images = self.validation_images
        if images is not None and config.images is not None:
            images = min(images, config.images)
        return config.model_copy(
            update={
                "attack": _capped(config.attack, self.validation_steps),
                "images": config.images if images is None else images,
            }
        )

    def judged_like(self, other: "Fidelity") -> bool:
        """Whether both measure by one protocol: only then may their accuracies be compared."""
        return (self.validation_steps, self.validation_images) == (
            other.validation_steps,
            other.validation_images,
        )


def fidelity_at(fidelities: Sequence[Fidelity], epoch: int) -> Fidelity:
    """The stage of this epoch (from 1); beyond the last one, and without any, all is as the config has it."""
    return next((fidelity for fidelity in fidelities if epoch <= fidelity.until), Fidelity(epoch))


def _capped(attack: _Attack, steps: int | None) -> _Attack:
    """With at most so many steps, each longer in the same measure but not longer than eps: a weaker attack that reaches as far."""
    if steps is None or attack.steps <= steps:
        return attack
    longer = min(1.0, attack.relative_step_size * attack.steps / steps)
    return attack.model_copy(
        update={"steps": steps, "relative_step_size": max(attack.relative_step_size, longer)}
    )
