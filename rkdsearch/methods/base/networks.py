"""Teacher and student as a method sees them: functions from images to logits."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from rkdsearch import models

BatchNormMode = Literal["eval", "train"]
Forward = Callable[[Tensor], Tensor]  # images (N, C, H, W) to logits (N, K)
Precision = Callable[[], AbstractContextManager[None]]


class Teacher:
    """A frozen network. Its logits of the clean batch may be known from an earlier epoch."""

    def __init__(self, network: nn.Module, precision: Precision = nullcontext) -> None:
        self.network = network
        self.precision = precision
        self._known: tuple[Tensor, Tensor] | None = None

    def remember(self, x: Tensor, logits: Tensor) -> None:
        """Return `logits` from now on for this very tensor `x`, without a forward."""
        self._known = (x, logits)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K). Gradients can reach x, never the parameters."""
        if self._known is not None and self._known[0] is x:
            return self._known[1]
        with self.precision():
            logits: Tensor = self.network(x)
        return logits


class Student:
    """A network in training. During an attack its inference copy takes its place.

    `inference_copy` returns an eval-mode network of the same function (BatchNorm folded, weights
    shared, no parameter gradients). Without it, the network itself is put in eval mode for the
    attack and restored afterwards, also when the attack raises. `compiled` runs the network and its
    features through torch's compiler; the caller compiles the inference copy.
    """

    def __init__(
        self,
        network: nn.Module,
        inference_copy: Callable[[], Forward] | None = None,
        precision: Precision = nullcontext,
        *,
        compiled: bool = False,
    ) -> None:
        self.network = network
        self.precision = precision
        # Read from this very class: a subclass may add BatchNorm or dropout.
        self._independent = bool(vars(type(network)).get("independent", False))
        self._inference_copy = inference_copy
        self._forward: Forward = torch.compile(network) if compiled else network
        self._features = torch.compile(models.features) if compiled else models.features
        self._active: Forward = self._forward

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K), by the network or, inside `under_attack`, by its inference copy."""
        with self.precision():
            return self._active(x)

    def logits(
        self, *batches: Tensor, weights: Sequence[float] | None = None
    ) -> tuple[Tensor, ...]:
        """Logits (N, K) of each batch, in this order.

        A network that treats every image by itself takes the batches in one forward. `weights` says
        how much each batch counts in the loss. Images of weight 0 pass the network, since BatchNorm
        and the reported terms see them, but no gradient is computed for them.
        """
        weights = weights or [1.0] * len(batches)
        tracked = self._forwards([x for x, w in zip(batches, weights, strict=True) if w > 0])
        return tuple(
            next(tracked) if w > 0 else self._without_gradient(x)
            for x, w in zip(batches, weights, strict=True)
        )

    def _forwards(self, batches: list[Tensor]) -> Iterator[Tensor]:
        if self._independent and len(batches) > 1:
            yield from torch.split(self(torch.cat(batches)), [len(batch) for batch in batches])
        else:
            yield from map(self, batches)

    @torch.no_grad()
    def _without_gradient(self, x: Tensor) -> Tensor:
        return self(x)

    @torch.no_grad()
    def eval_logits(self, x: Tensor) -> Tensor:
        """Logits (N, K) in eval mode, without gradient."""
        with self.under_attack("eval"):
            return self(x)

    def features(self, x: Tensor) -> models.Features:
        """Logits and named representations, by the network."""
        with self.precision():
            return self._features(self.network, x)

    def closed_form_gradient(self, slope: models.Slope, x: Tensor) -> models.Gradient | None:
        """`models.closed_form_gradient` of the network that a call would use now."""
        with self.precision():
            return models.closed_form_gradient(self._active, slope, x)

    @contextmanager
    def under_attack(self, batchnorm: BatchNormMode) -> Iterator[None]:
        """Calls inside are the attack's, and track no parameter.

        `eval` keeps BatchNorm statistics as they are; `train` moves them, as ARD's code does.
        """
        if self._inference_copy is not None and (batchnorm == "eval" or self._independent):
            self._active = self._inference_copy()
            try:
                yield
            finally:
                self._active = self._forward
            return
        modes = {module: module.training for module in self.network.modules()}
        trained = [p for p in self.network.parameters() if p.requires_grad]
        try:
            self.network.train(batchnorm == "train")
            for p in trained:
                p.requires_grad_(False)
            yield
        finally:
            for p in trained:
                p.requires_grad_(True)
            for module, training in modes.items():
                module.training = training
