"""The candidates of `validation_attack.py`: PGD runs with one start.

They differ in the objective, the step sizes, the momentum and the start. A candidate of n steps
costs n forward and backward passes, and a last forward pass.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import Literal

import torch
from attack_objectives import LogitFunction, margin, objectives
from torch import Tensor, nn

from rkdsearch.attacks import Linf, LogitLoss, Noise
from rkdsearch.attacks.objectives import gradient_of
from rkdsearch.methods import Student

Sizes = Literal[
    "quarter", "2.5/steps", "linear", "linear 2", "cosine", "cosine 2", "halving", "halving 2"
]
OBJECTIVES = objectives()
SOFT = "soft range 20"
CLASSICS = ("cross-entropy", "margin", "dlr")
BEST = (
    SOFT,
    "soft margin 4",
    "soft others 6",
    f"{SOFT} > margin",
    "soft margin 4 > margin",
    "soft others 6 > margin",
)
MIXTURES = ("cross-entropy > margin",)
WEAK = (
    "own logit",
    "soft range 5",
    "soft deviation 2",
    "soft first_third 2",
    "soft range 10, attached",
    "soft deviation 4, attached",
    "soft first_third 4, attached",
    "soft first_third 4",
    "soft deviation 4",
    "soft deviation 16",
    "soft margin 1",
    "soft others 3",
)


@dataclass(frozen=True)
class Candidate:
    """One attack.

    `objective` names one function for all steps, or several: joined by ' > ' they share the steps
    equally, one after the other; joined by ' / ' they alternate.
    """

    objective: str
    steps: int = 10
    sizes: Sizes = "quarter"
    momentum: float = 0.0
    start: Literal["uniform", "none"] = "uniform"

    def function(self, step: int) -> LogitFunction:
        """The objective of this step, from 0."""
        if " / " in self.objective:
            names = self.objective.split(" / ")
            return OBJECTIVES[names[step % len(names)]]
        names = self.objective.split(" > ")
        return OBJECTIVES[names[step * len(names) // self.steps]]

    def step_size(self, step: int) -> float:
        """Step size as a fraction of eps, for a step from 0."""
        left = 1 - step / self.steps
        match self.sizes:
            case "quarter":
                return 0.25
            case "2.5/steps":
                return 2.5 / self.steps
            case "linear":
                return left
            case "linear 2":
                return 2 * left
            case "cosine":
                return (1 + math.cos(math.pi * step / self.steps)) / 2
            case "cosine 2":
                return 1 + math.cos(math.pi * step / self.steps)
            case "halving":  # 1, 1/2, ..., 1/16 of eps
                return float(0.5 ** (5 * step // self.steps))
            case "halving 2":
                return 2 * float(0.5 ** (6 * step // self.steps))

    @property
    def name(self) -> str:
        """Its name in the tables and in the cache."""
        return ", ".join(
            [
                self.objective,
                f"{self.steps} steps",
                self.sizes,
                *([f"momentum {self.momentum:g}"] if self.momentum else []),
                *(["from x"] if self.start == "none" else []),
            ]
        )


@dataclass(frozen=True)
class AttackResults:
    """Images that stay right, (N,) booleans, and seconds.

    `last`: on x and on the last x'; `every`: on x and on every x' of the attack.
    """

    last: Tensor
    every: Tensor
    seconds: float


def attack(
    candidate: Candidate, network: nn.Module, x: Tensor, y: Tensor, *, eps: float, seed: int
) -> AttackResults:
    """The results of one run on images x (N, C, H, W) with labels y (N,)."""
    began = time.perf_counter()
    steps = iter(range(candidate.steps))
    with torch.no_grad():
        clean = network(x).argmax(dim=1) == y
    every = clean.clone()

    def slope(logits: Tensor) -> Tensor:
        every.logical_and_(logits.argmax(dim=1) == y)
        return candidate.function(next(steps)).slope(logits, y)

    ball = Linf(eps)
    objective = LogitLoss(lambda z: margin(z, y), slope).of(Student(network))
    gradient, project = gradient_of(objective, x), ball.projection_around(x)
    x_adv = x.clone()
    if candidate.start == "uniform":
        noise = Noise(torch.Generator().manual_seed(seed))
        x_adv = project(x_adv + ball.random_perturbation(noise.uniform(x)))
    before = x_adv.clone()
    for step in range(candidate.steps):
        direction = ball.direction(gradient(x_adv))
        moved = project(x_adv + candidate.step_size(step) * eps * direction)
        if candidate.momentum and step:
            # APGD's momentum: a share of the step before, projected again.
            moved = project(
                x_adv
                + (1 - candidate.momentum) * (moved - x_adv)
                + candidate.momentum * (x_adv - before)
            )
        before, x_adv = x_adv, moved
    with torch.no_grad():
        right = network(x_adv).argmax(dim=1) == y
    seconds = time.perf_counter() - began
    return AttackResults(last=clean & right, every=every & right, seconds=seconds)


def first_look() -> list[Candidate]:
    """Every objective with 10 steps of eps / 4, and the better ones with 20."""
    return [Candidate(name) for name in (*OBJECTIVES, *BEST[3:]) if name not in WEAK] + [
        Candidate(name, 20) for name in (*CLASSICS, *BEST)
    ]


def step_sizes() -> list[Candidate]:
    """Other step sizes and starts, and objectives that share the steps."""
    base = Candidate(SOFT)
    found = [replace(base, sizes=sizes) for sizes in ("linear", "halving 2")]
    found += [replace(base, sizes="cosine", start="none")]
    found += [Candidate(name, sizes="cosine") for name in (*CLASSICS, *BEST, *MIXTURES)]
    found += [Candidate(name, 20, "cosine") for name in BEST]
    return found + [Candidate(name) for name in MIXTURES]


def trials_and_errors() -> list[Candidate]:
    """Candidates that the first students ruled out, or that differ too little from others."""
    base = Candidate(SOFT)
    found = [Candidate(name) for name in WEAK]
    found += [replace(base, sizes=sizes) for sizes in ("linear 2", "cosine 2", "halving")]
    found += [replace(base, momentum=0.25), replace(base, steps=20, sizes="2.5/steps")]
    found += [replace(base, start="none"), replace(base, sizes="cosine 2", momentum=0.25)]
    mixed = (
        "own logit > margin",
        "cross-entropy / margin",
        "soft range 20 / margin",
        "margin > soft range 20",
        "soft range 5 > soft range 40",
    )
    return found + [Candidate(name) for name in mixed]
