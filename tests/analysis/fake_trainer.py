"""A trainer that computes nothing.

Accuracies rise with the epoch, with the learning rate, and with the steps of the attack.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity, fidelity_at
from rkdsearch.errors import NonFiniteLossError
from rkdsearch.training.epoch import Best, EpochResult


class FakeTrainer:
    """Counts what it is asked for in `trained`: (epoch, training attack steps).

    It diverges after epoch 6 where weights decay by 0.01.
    """

    trained: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, config: TrainConfig, *, fidelities: Sequence[Fidelity] = ()) -> None:
        self.config, self.fidelities = config, fidelities

    def epochs(self) -> Iterator[EpochResult]:
        best = None
        for epoch in range(1, self.fidelities[-1].epochs + 1):
            fidelity = fidelity_at(self.fidelities, epoch)
            steps = fidelity.attack(self.config.attack).steps
            if epoch > 6 and self.config.optimizer.weight_decay == 0.01:
                raise NonFiniteLossError("the loss is nan")
            FakeTrainer.trained.append((epoch, steps))
            clean, robust = self.config.optimizer.lr * epoch / 54, 0.05 * steps * epoch / 54
            validated = epoch == fidelity.epochs or epoch % 6 == 0
            best = Best(epoch, clean, robust, 0.0) if validated else best
            values: dict[str, Any] = (
                {"clean_accuracy": clean, "robust_accuracy": robust, "images": 404}
                if validated
                else {}
            )
            yield EpochResult(epoch, 54, 1.0, {}, 0.1, 0.1, 1.0, steps, best=best, **values)
