"""Learning curves for simulated searches, in place of training: simulated and recorded ones.

Simulated: a method, an attack budget and five more values decide how well a student learns, when
and how fast, and where it lies between clean and robust accuracy; early values tell late ones
roughly as on the recorded digits runs. The robust accuracy peaks and then decays (robust
overfitting); every run has noise of its own, as seeds do, and so does every validation. Training
with a capped attack has another optimum, and noise of its own. Three shapes of the best possible
front; a seed of the landscape moves its optimum.

Recorded: `data/digits_runs.parquet`: full-length runs, and runs with a capped attack (`record.py`
makes it).

Cost is counted in full runs with a training attack of ten steps; training and validation attacks
are charged by their steps.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rkdsearch.config.fidelity import Fidelity
from rkdsearch.space.space import SearchSpace

EPOCHS, EVERY, STEPS = 54, 6, 10
# steps of the capped training attack; the epoch after which the cap of a run that goes on is lifted
CAP, LIFTED = 2, 18
OUTER = 2.9  # what the rest of a training step costs, in steps of its attack: measured on digits
VALIDATION_SHARE = 0.43  # validation images for each training image of the digits space
# exponent p of the best front, clean**p + robust**p = 1
SHAPES = {"bulging": 1.5, "straight": 1.0, "dented": 0.7}
# clean, robust: standard deviation between seeds of one configuration; the second was measured on
# digits
SEED_NOISE = (0.01, 0.02)
VALIDATION_NOISE = 0.008  # of one validation against another of the same run
PACE = 3.5  # epochs in which the highest rate learns most of what it will
# epochs before it begins, and how that differs (standard deviations of the logarithm)
DELAY, DELAY_OF_METHOD, DELAY_OF_ONE = 0.4, 0.7, 0.5
# of a configuration under the cap, a share of its accuracies; of the cap's own optimum, in
# logarithms
CAP_NOISE, CAP_SHIFT = 0.01, 0.1
VALIDATED = np.array([2, *range(EVERY, EPOCHS + 1, EVERY)])

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

Ladder = tuple[Fidelity, ...]


@cache
def simulated_space() -> SearchSpace:
    """The space of simulated searches.

    Seven of the digits space's parameters, two of them conditional.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "simulated.yaml"
        file.write_text(SPACE, encoding="utf-8")
        return SearchSpace.load(file)


class Training(Protocol):
    """One training run, as a search may look at it."""

    def values_at(self, epoch: int) -> tuple[float, float]:
        """Measured clean and robust accuracy of the best epoch so far, both from that one."""

    def delivers(self) -> tuple[float, float]:
        """Clean and robust accuracy of what the whole run would keep, as well as they are known."""


@dataclass(frozen=True)
class Run:
    """A known run: clean and robust accuracy of its validated epochs.

    `epochs` (T,) are the validated epochs; `measured` and `true` (T, 2) are clean and robust
    accuracy there.

    `true` is without the noise of seed and validation: the mean over many fresh seeds.
    """

    epochs: NDArray[np.int64]
    measured: NDArray[np.float64]
    true: NDArray[np.float64]

    def judged(self, epoch: int) -> int:
        """Index of the best epoch up to `epoch`.

        The best mean of both accuracies; the earliest of equals.
        """
        return int(self.measured[self.epochs <= epoch].mean(axis=1).argmax())

    def values_at(self, epoch: int) -> tuple[float, float]:
        """Measured clean and robust accuracy of the best epoch so far, both from that one."""
        clean, robust = self.measured[self.judged(epoch)]
        return float(clean), float(robust)

    def delivers(self) -> tuple[float, float]:
        """True clean and robust accuracy of what a full run would keep."""
        clean, robust = self.true[self.judged(EPOCHS)]
        return float(clean), float(robust)


@dataclass(frozen=True)
class Curve:
    """All runs of a configuration.

    `capped` is trained with at most `CAP` attack steps; `continued` likewise until `LIFTED`, then
    without a cap.

    Where its training attack takes no more steps than the cap, all three are the same run.
    """

    attack_steps: int
    full: Training
    capped: Training
    continued: Training

    def run(self, ladder: Ladder, rung: int, *, afresh: bool) -> Training:
        """The run that a rung compares: from the start (`afresh`), or continued without its cap."""
        if ladder[rung].training_attack_steps is not None:
            return self.capped
        return self.full if afresh or ladder[0].training_attack_steps is None else self.continued

    def cost(self, ladder: Ladder, rung: int, *, afresh: bool) -> float:
        """Full runs that it costs to reach the rung from the one below."""
        steps = self._steps(ladder[rung])
        continues = rung > 0 and (not afresh or self._steps(ladder[rung - 1]) == steps)
        return cost_of(ladder[rung - 1].epochs if continues else 0, ladder[rung].epochs, steps)

    def _steps(self, rung: Fidelity) -> int:
        return (
            self.attack_steps
            if rung.training_attack_steps is None
            else min(self.attack_steps, rung.training_attack_steps)
        )


def cost_of(start: int, end: int, attack_steps: int) -> float:
    """Cost of the epochs from `start` to `end`, in full runs with a ten-step training attack.

    Epoch `end` is validated.
    """

    def steps(begin: int, last: int, attack: int) -> float:
        validations = last // EVERY - begin // EVERY + (last % EVERY > 0)
        # a clean look is a third of a step
        return (last - begin) * (attack + OUTER) + validations * VALIDATION_SHARE * (STEPS + 1 / 3)

    return steps(start, end, attack_steps) / steps(0, EPOCHS, STEPS)


class Landscape(Protocol):
    """The runs among which a search is simulated."""

    @property
    def space(self) -> SearchSpace:
        """The space that proposals are made for."""

    def given(self, ordinal: int) -> dict[str, Any] | None:
        """The configuration of this number in a fixed table; None where any may be proposed."""

    def curve(self, overrides: Mapping[str, Any]) -> Curve:
        """The runs of this configuration."""


@dataclass(frozen=True)
class Simulated:
    """Simulated runs. `shape` names the best front; `seed` moves the optimum and draws the noise.

    Where all is `clear`, there is no noise, nobody begins late, and the cap moves no optimum; rates
    still differ in pace, and robustness decays.
    """

    shape: str
    seed: int
    clear: bool = False

    @property
    def space(self) -> SearchSpace:
        """Seven parameters."""
        return simulated_space()

    def given(self, ordinal: int) -> None:
        """Nothing: anything may be proposed."""

    def curve(self, overrides: Mapping[str, Any]) -> Curve:
        """The runs of a configuration: a function of the landscape's seed and the configuration."""
        steps = int(overrides["attack.steps"])
        rng = np.random.default_rng(
            number_of(self.seed, json.dumps(dict(overrides), sort_keys=True))
        )
        late = float(rng.normal(0, DELAY_OF_ONE))
        true = self._true(overrides, steps, late)
        full = self._measured(true, rng)
        if steps <= CAP:
            return Curve(steps, full, full, full)
        capped = self._measured(
            self._true(overrides, CAP, late, self._optimum["cap"])
            * rng.normal(1, self._murk * CAP_NOISE),
            rng,
        )
        later, early = self._measured(true, rng), (VALIDATED <= LIFTED)[:, None]
        continued = Run(
            VALIDATED,
            np.where(early, capped.measured, later.measured),
            np.where(early, capped.true, later.true),
        )
        return Curve(steps, full, capped, continued)

    @property
    def _murk(self) -> float:
        return 0.0 if self.clear else 1.0

    def _measured(self, true: NDArray[np.float64], rng: np.random.Generator) -> Run:
        noise = self._murk * (
            rng.normal(0, SEED_NOISE) + rng.normal(0, VALIDATION_NOISE, true.shape)
        )
        return Run(VALIDATED, np.clip(true + noise, 0, 1), true)

    def _true(
        self, overrides: Mapping[str, Any], steps: int, late: float, shift: float = 0.0
    ) -> NDArray[np.float64]:
        best, method = self._optimum, str(overrides["method.name"])
        lr, decay, eps = (
            float(overrides[name])
            for name in ("optimizer.lr", "optimizer.weight_decay", "attack.eps")
        )
        off = (math.log(lr) - best[f"lr {method}"] - shift) ** 2 / 1.5 + (
            math.log(decay) - best["weight_decay"]
        ) ** 2 / 30
        if "method.temperature" in overrides:
            off += (
                math.log(overrides["method.temperature"]) - best["temperature"] - shift
            ) ** 2 / 4
        quality = best[f"quality {method}"] * math.exp(-off / 2)
        dial = (eps - 0.05) / 0.2
        if "method.adversarial_weight" in overrides:
            dial = 0.6 * dial + 0.4 * (overrides["method.adversarial_weight"] - 0.3) / 0.7
        dial = min(max(dial, 0.02), 0.98)
        p = SHAPES[self.shape]
        ends = np.array(
            [
                quality * (1 - dial) ** (1 / p),
                quality * {2: 0.93, 5: 0.98, 10: 1.0}[steps] * dial ** (1 / p),
            ]
        )
        # A low rate learns slowly, some methods begin late, robustness comes after accuracy: short
        # runs flatter the fast and the clean.
        slow = (0.2 / lr) ** 0.4
        pace = PACE * slow * np.array([1, 1 + dial])
        begun = np.maximum(
            VALIDATED - self._murk * DELAY * slow * math.exp(best[f"delay {method}"] + late), 0.05
        )
        true: NDArray[np.float64] = ends * (1 - np.exp(-begun[:, None] / pace))
        little_decay = (math.log(1e-2) - math.log(decay)) / math.log(1e3)
        peak = EPOCHS * (0.9 - 0.5 * little_decay)
        true[:, 1] *= 1 - 0.6 * dial * np.maximum(VALIDATED - peak, 0) / EPOCHS
        return true

    @cached_property
    def _optimum(self) -> dict[str, float]:
        rng = np.random.default_rng(number_of(self.seed, "optimum"))
        qualities = rng.permutation([1.0, 0.97, 0.92])
        found = {
            f"quality {method}": float(q)
            for method, q in zip(("rslad", "iad", "trades"), qualities, strict=True)
        }
        found |= {
            f"lr {method}": math.log(0.06) + float(rng.normal(0, 0.5))
            for method in ("rslad", "iad", "trades")
        }
        found |= {
            "weight_decay": math.log(5e-4) + float(rng.normal(0, 1)),
            "temperature": math.log(2.8) + float(rng.normal(0, 0.4)),
        }
        found |= {
            f"delay {method}": float(rng.normal(0, DELAY_OF_METHOD))
            for method in ("rslad", "iad", "trades")
        }
        return found | {"cap": self._murk * float(rng.normal(0, CAP_SHIFT))}


@dataclass(frozen=True)
class Recorded:
    """Recorded runs, in an order that `seed` shuffles.

    Nothing can be proposed: the table is fixed, so it compares schedulers.
    """

    searched: SearchSpace
    runs: Sequence[tuple[dict[str, Any], Curve]]
    seed: int

    @property
    def space(self) -> SearchSpace:
        """The space that the runs were drawn from."""
        return self.searched

    def given(self, ordinal: int) -> dict[str, Any]:
        """The configuration that comes next."""
        return self.runs[int(self._order[ordinal])][0]

    def curve(self, overrides: Mapping[str, Any]) -> Curve:
        """Its recorded runs."""
        return next(curve for known, curve in self.runs if known == overrides)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.random.default_rng(number_of(self.seed, "order")).permutation(len(self.runs))


def read(file: Path, drawn: str = "space") -> list[tuple[dict[str, Any], Curve]]:
    """The recorded table: configurations whose full and capped runs are complete.

    Only those that were `drawn` so (`record.drawn`): from the whole space, so that a replay meets
    what a search would, or around published settings.

    Not every configuration was also trained on after its cap was lifted: where it was not,
    `continued` is the full run.
    """
    found = []
    table = pd.read_parquet(file).sort_values("epoch")
    for _, rows in table[table["drawn"].eq(drawn)].groupby("configuration"):
        full, capped, later = (run_of(rows, name) for name in ("full", "capped", "continued"))
        steps = int(rows["training_attack_steps"].max())
        if steps <= CAP:
            capped = later = full
        if full is None or capped is None or full.epochs[-1] < EPOCHS:
            continue
        if later is not None and later is not full:
            parts = zip(
                (capped.epochs, capped.measured, capped.true),
                (later.epochs, later.measured, later.true),
                strict=True,
            )
            later = Run(*(np.concatenate(part) for part in parts))
        found.append(
            (json.loads(rows["overrides"].iloc[0]), Curve(steps, full, capped, later or full))
        )
    return found


def run_of(rows: pd.DataFrame, name: str) -> Run | None:
    """One run of one configuration's rows; None where it has none."""
    rows = rows[rows["run"] == name]
    values = rows[["clean_accuracy", "robust_accuracy"]].to_numpy(dtype=float)
    return Run(rows["epoch"].to_numpy(dtype=np.int64), values, values) if len(rows) else None


def number_of(seed: int, text: str) -> int:
    """A seed of 64 bits from a seed and a text."""
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:8], "big")
