"""Learning curves for searches to be tried on, in place of trainings: simulated ones, and recorded ones.

Simulated: a method, an attack budget and five more values decide how well a student learns, how fast, and where it lies between clean and
robust accuracy. The robust accuracy peaks and then decays (robust overfitting); every run has noise of its own, as seeds do, and so does
every validation. Three shapes of the best possible front; a seed of the landscape moves its optimum.

Recorded: `data/digits_runs.parquet`, full-length runs with the values at every validated epoch (`search.py --record` makes it).

Cost is counted in full runs with a training attack of ten steps; training and validation attacks are charged by their steps.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rkdsearch.search.space import SearchSpace

EPOCHS, EVERY, RUNGS = 54, 6, (6, 18, 54)
VALIDATION_STEPS = 10
VALIDATION_SHARE = 0.43  # validation images for each training image of the digits space
SHAPES = {"bulging": 1.5, "straight": 1.0, "dented": 0.7}  # exponent p of the best front, clean**p + robust**p = 1
SEED_NOISE = (0.01, 0.02)  # clean, robust: standard deviation between seeds of one configuration; the second was measured on digits
EXAM_NOISE = 0.008  # of one validation against another of the same run

SPACE = """
fixed:
  data: {name: digits, validation_fraction: 0.3, test_fraction: 0.25}
  student: {name: small_cnn, width: 8}
  validation: {attack: {norm: linf, eps: 0.15, steps: 10}, every: 6}
  attack: {norm: linf}
  optimizer: {name: sgd}
  training: {batch_size: 128, device: cpu}
  teachers: {robust: {network: {name: small_cnn}, path: nowhere.safetensors}}
search:
  method.name: {choice: [rslad, iad, trades]}
  attack.eps: {float: [0.05, 0.25]}
  attack.steps: {choice: [2, 5, 10]}
  optimizer.lr: {float: [0.01, 0.2], log: true}
  optimizer.weight_decay: {float: [1.0e-5, 1.0e-2], log: true}
  method.temperature: {float: [1.0, 8.0], log: true, when: {method.name: [rslad, iad]}}
  method.adversarial_weight: {float: [0.3, 1.0], when: {method.name: rslad}}
ladder: [{epochs: 6}, {epochs: 18}, {epochs: 54}]
"""


@cache
def simulated_space() -> SearchSpace:
    """The space that simulated searches search: seven of the digits space's parameters, two of them conditional."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "simulated.yaml"
        file.write_text(SPACE, encoding="utf-8")
        return SearchSpace.load(file)


def cost_of(epochs: int, attack_steps: int) -> float:
    """What `epochs` of training cost, validations included, in full runs with a ten-step training attack.

    A step of an attack and a step of the weights are one forward and one backward of the student each; the teacher's answer is a third of it.
    """

    def passes(length: int, steps: int) -> float:
        training = length * (1 + 1 / 3 + steps)
        return training + length // EVERY * VALIDATION_SHARE * (1 / 3 + VALIDATION_STEPS)

    return passes(epochs, attack_steps) / passes(EPOCHS, 10)


@dataclass(frozen=True)
class Curve:
    """One configuration's run. `epochs` (T,) are the validated ones; `measured` and `true` (T, 2) are clean and robust accuracy there.

    `true` is without the noise of seed and exam: what many fresh seeds would measure.
    """

    epochs: NDArray[np.int64]
    measured: NDArray[np.float64]
    true: NDArray[np.float64]
    attack_steps: int

    def judged(self, epoch: int) -> int:
        """Index of the epoch by which the run is judged after `epoch`: the best mean of both accuracies so far, the earliest of equals."""
        reached = self.epochs <= epoch
        return int(self.measured[reached].mean(axis=1).argmax())

    def values_at(self, epoch: int) -> tuple[float, float]:
        """Measured clean and robust accuracy of the best epoch so far, both from that one."""
        clean, robust = self.measured[self.judged(epoch)]
        return float(clean), float(robust)

    def delivers(self) -> tuple[float, float]:
        """True clean and robust accuracy of what a full run would keep."""
        clean, robust = self.true[self.judged(EPOCHS)]
        return float(clean), float(robust)

    def cost(self, start: int, end: int) -> float:
        """Full runs that the epochs after `start` up to `end` cost."""
        return cost_of(end, self.attack_steps) - cost_of(start, self.attack_steps)


class Landscape(Protocol):
    """What a search is tried on."""

    @property
    def space(self) -> SearchSpace:
        """The space that proposals are made for."""

    def given(self, ordinal: int) -> dict[str, Any] | None:
        """The configuration of this number where the landscape knows only some, so that nobody can propose; None where anything may be asked."""

    def curve(self, overrides: Mapping[str, Any]) -> Curve:
        """How a run of this configuration goes."""


@dataclass(frozen=True)
class Simulated:
    """Simulated runs. `shape` names the best front; `seed` moves the optimum and draws the noise."""

    shape: str
    seed: int

    @property
    def space(self) -> SearchSpace:
        """Seven parameters."""
        return simulated_space()

    def given(self, ordinal: int) -> None:
        """Nothing: anything may be proposed."""

    def curve(self, overrides: Mapping[str, Any]) -> Curve:
        """The run of a configuration: a function of the landscape's seed and the configuration."""
        best, method = self._optimum(), str(overrides["method.name"])
        lr, decay, eps = (float(overrides[name]) for name in ("optimizer.lr", "optimizer.weight_decay", "attack.eps"))
        off = (math.log(lr) - best[f"lr {method}"]) ** 2 / 1.5 + (math.log(decay) - best["weight_decay"]) ** 2 / 30
        if "method.temperature" in overrides:
            off += (math.log(overrides["method.temperature"]) - best["temperature"]) ** 2 / 4
        quality = best[f"quality {method}"] * math.exp(-off / 2)
        dial = (eps - 0.05) / 0.2
        if "method.adversarial_weight" in overrides:
            dial = 0.6 * dial + 0.4 * (overrides["method.adversarial_weight"] - 0.3) / 0.7
        dial = min(max(dial, 0.02), 0.98)
        steps = int(overrides["attack.steps"])
        p = SHAPES[self.shape]
        ends = np.array([quality * (1 - dial) ** (1 / p), quality * {2: 0.93, 5: 0.98, 10: 1.0}[steps] * dial ** (1 / p)])
        # A low rate learns slowly, and robustness comes after accuracy: short runs flatter the fast and the clean.
        slow = 1.3 * (0.2 / lr) ** 0.4
        pace = np.array([slow, slow * (1 + 1.5 * dial)])
        epochs = np.arange(EVERY, EPOCHS + 1, EVERY)
        true = ends * (1 - np.exp(-epochs[:, None] / pace))
        little_decay = (math.log(1e-2) - math.log(decay)) / math.log(1e3)
        peak = EPOCHS * (0.9 - 0.5 * little_decay)
        true[:, 1] *= 1 - 0.6 * dial * np.maximum(epochs - peak, 0) / EPOCHS
        rng = np.random.default_rng(_number(self.seed, json.dumps(dict(overrides), sort_keys=True)))
        noise = rng.normal(0, SEED_NOISE) + rng.normal(0, EXAM_NOISE, true.shape)
        return Curve(epochs, np.clip(true + noise, 0, 1), true, steps)

    def _optimum(self) -> dict[str, float]:
        rng = np.random.default_rng(_number(self.seed, "optimum"))
        qualities = rng.permutation([1.0, 0.97, 0.92])
        found = {f"quality {method}": float(q) for method, q in zip(("rslad", "iad", "trades"), qualities, strict=True)}
        found |= {f"lr {method}": math.log(0.06) + float(rng.normal(0, 0.5)) for method in ("rslad", "iad", "trades")}
        return found | {"weight_decay": math.log(5e-4) + float(rng.normal(0, 1)), "temperature": math.log(2.8) + float(rng.normal(0, 0.4))}


@dataclass(frozen=True)
class Recorded:
    """Recorded runs, met in an order that `seed` shuffles. Nobody can propose here: the table has what it has, so it compares schedulers."""

    searched: SearchSpace
    runs: Sequence[tuple[dict[str, Any], Curve]]
    seed: int

    @property
    def space(self) -> SearchSpace:
        """The space that the runs were drawn from."""
        return self.searched

    def given(self, ordinal: int) -> dict[str, Any]:
        """The configuration that comes next."""
        order = np.random.default_rng(_number(self.seed, "order")).permutation(len(self.runs))
        return self.runs[int(order[ordinal])][0]

    def curve(self, overrides: Mapping[str, Any]) -> Curve:
        """Its recorded run."""
        return next(curve for known, curve in self.runs if known == overrides)


def read(file: Path) -> list[tuple[dict[str, Any], Curve]]:
    """The recorded table: configurations with their runs, only those that reached full length."""
    found = []
    for _, rows in pd.read_parquet(file).sort_values("epoch").groupby("configuration"):
        if rows["epoch"].iloc[-1] == EPOCHS:
            values = rows[["clean_accuracy", "robust_accuracy"]].to_numpy(dtype=float)
            steps = int(rows["training_attack_steps"].iloc[0])
            found.append((json.loads(rows["overrides"].iloc[0]), Curve(rows["epoch"].to_numpy(dtype=np.int64), values, values, steps)))
    return found


def _number(seed: int, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:8], "big")
