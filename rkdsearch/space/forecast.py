"""Forecast of a search before it starts: trials on each rung, and the cost in full runs."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.pace import number_of
from rkdsearch.space.ladder import capped_steps, segments, starting_rung
from rkdsearch.space.settings import STRENGTHS, Replicates, SchedulerConfig

# Cost of the rest of a training step, in attack steps; measured 2.9 on digits, with validation.
STEP_OVERHEAD = 3
MOST_TRIALS = 100_000  # beyond which nobody is told how many would be enough


def rung_costs(
    ladder: Sequence[Fidelity], scheduler: SchedulerConfig, attack_steps: int, start: int = 0
) -> list[float]:
    """Cost from each rung to the next for a trial that begins on rung `start`, in full runs."""
    full = ladder[-1].epochs * (attack_steps + STEP_OVERHEAD)
    found = [0.0] * start
    for segment in segments(ladder, scheduler, attack_steps, start):
        before = 0
        for rung in segment.fidelities:
            steps = capped_steps(rung, attack_steps) + STEP_OVERHEAD
            found.append((rung.epochs - before) * steps / full)
            before = rung.epochs
    return found


@dataclass(frozen=True)
class Forecast:
    """The forecast of a search of `trials` trials; without a number of them it has no numbers.

    Costs are means over `examples`, runs of the space. `baselines` of the trials run to full
    length; the best of each of their `families` is replicated, and the best of each of the
    `methods`. Every choice with a minimum has it after `owed` searched trials; `beliefs` is the
    confidence in the baselines, of which `believable` families have a method that is searched.
    """

    ladder: Sequence[Fidelity]
    scheduler: SchedulerConfig
    replicates: Replicates
    examples: Sequence[TrainConfig]
    trials: int | None
    baselines: int
    families: int = 0
    methods: int = 1
    believable: int = 0
    owed: int = 0
    beliefs: str = "none"

    def lines(self) -> Iterator[str]:
        """A line for each rung, for the replicates and for the cost; then warnings."""
        if self.scheduler.name == "none":
            yield f"no scheduler: every trial runs to its {self.ladder[-1].epochs} epochs"
        else:
            yield from self._rungs()
        yield from self._replicated()
        if self.trials is not None:
            searched = self.trials - self.baselines
            yield self._cost(self.trials)
            yield from self._told_of_beliefs(self.trials)
            yield from self._short_of_minimum(searched)
            yield from self._too_few(self.trials)

    def _rungs(self) -> Iterator[str]:
        arrivals = None if self.trials is None else self._arrivals(self.trials)
        for number, rung in enumerate(self.ladder):
            text = _described(rung, self.ladder[-1].epochs)
            if arrivals is not None:
                searched = sum(arrivals[number])
                text += (
                    f", about {number_of(searched, 'searched trial')} and"
                    f" {number_of(self.baselines, 'baseline')}"
                )
            yield text

    def _replicated(self) -> Iterator[str]:
        replicates = self.replicates
        if not replicates.seeds:
            return
        more = f", of the best of each of {self.methods} methods" if self.methods > 1 else ""
        if replicates.baselines and self.families:
            more += f" and of the {number_of(self.families, 'baseline')}"
        number = number_of(replicates.seeds, "replicate")
        if replicates.race:
            number = f"{replicates.race} to {number}, more for the better ones,"
        most = replicates.contenders
        yield f"then {number} each of up to {most} contenders{more}, to full length"

    def full_runs(self, trials: int) -> float:
        """The cost of so many trials and of the replicates, in full runs; without beliefs."""
        return self._configurations_cost(trials) + self._replicates_cost(trials)[1]

    def of_beliefs(self, trials: int) -> float:
        """The most that proposals near baselines cost more than others, in full runs."""
        near = self._near_baselines(trials)
        return near * (1 - self._mean_costs(0)[0]) if near else 0.0

    def _cost(self, trials: int) -> str:
        own, (text, _) = self._configurations_cost(trials), self._replicates_cost(trials)
        searched, digits = f"{trials} configurations", 0
        if self.scheduler.name != "none":
            searched, digits = f"{searched} ({self.scheduler.name}, {self.scheduler.kind})", 1
        parts = f": {own:.{digits}f} for {searched} and {text}" if text else f" for {searched}"
        return f"expected cost: about {self.full_runs(trials):.{digits}f} full runs{parts}"

    def _configurations_cost(self, trials: int) -> float:
        """Cost of searched trials and baselines, in full runs."""
        if self.scheduler.name == "none":
            return trials
        found = self.baselines * sum(self._mean_costs(0))
        for rung, (new, climbing) in enumerate(self._arrivals(trials)):
            # A promoted trial costs the way from the rung below, a new one the whole way.
            found += climbing * self._mean_costs(0)[rung] + new * self._mean_costs(rung)[rung]
        return found

    def _mean_costs(self, start: int) -> list[float]:
        each = [
            rung_costs(self.ladder, self.scheduler, config.attack.steps, start)
            for config in self.examples
        ]
        return [sum(rung) / len(each) for rung in zip(*each, strict=True)]

    def _replicates_cost(self, trials: int) -> tuple[str, int]:
        """The cost of replicates in words, and in full runs; empty words without any."""
        replicates = self.replicates
        if not replicates.seeds:
            return "", 0
        finished = trials
        if self.scheduler.name != "none":
            finished = sum(self._arrivals(trials)[-1]) + self.baselines
        contenders, baselines = replicates.compared(finished, self.families, self.methods)
        runs = replicates.runs(contenders, baselines)
        most = replicates.seeds * (contenders + baselines)
        if replicates.race:  # it keeps everybody whom nobody dominates
            return f"about {runs}, at most {most}, for replicates", runs
        return f"up to {runs} for replicates", runs

    def _arrivals(self, trials: int) -> list[tuple[int, int]]:
        """Expected searched trials on each rung: those that begin there, and those that climb."""
        begin = [starting_rung(self.scheduler, n) for n in range(trials - self.baselines)]
        found = [(begin.count(0), 0)]
        for rung in range(1, len(self.ladder)):
            climbing = promoted(self.scheduler, sum(found[-1]), self.baselines)
            found.append((begin.count(rung), climbing))
        return found

    def _near_baselines(self, trials: int) -> int:
        """The most proposals that are made near baselines."""
        strength = STRENGTHS.get(self.beliefs)
        if self.scheduler.name == "none" or strength is None or not self.believable:
            return 0
        left = max(0, trials - self.baselines - strength.trials)
        return min(left, max(self.believable * strength.first, round(strength.share * left)))

    def _told_of_beliefs(self, trials: int) -> Iterator[str]:
        if near := self._near_baselines(trials):
            first = STRENGTHS[self.beliefs].trials
            yield (
                f"beliefs ({self.beliefs}): once {first} searched trials stand on the lowest rung,"
                f" up to {near} of the other {trials - self.baselines - first} proposals are made"
                " near baselines that few outrank there, and trained to full length at once: up to"
                f" {self.of_beliefs(trials):.1f} full runs more"
            )

    def _short_of_minimum(self, searched: int) -> Iterator[str]:
        if searched < self.owed:
            yield (
                f"WARNING: sampler.minimum_per asks for {self.owed} searched trials, and there are"
                f" {max(0, searched)}: some choices have less than their share; ask for"
                f" {self.owed + self.baselines} trials"
            )

    def _too_few(self, trials: int) -> Iterator[str]:
        """The warning that no searched trial is likely to reach full length."""

        def arrives(number: int) -> bool:
            return bool(sum(self._arrivals(number)[-1]))

        if self.scheduler.name == "none" or trials <= self.baselines or arrives(trials):
            return
        most = trials
        while most < MOST_TRIALS and not arrives(most):
            most *= 2
        more = ""
        if arrives(most):
            enough = trials + bisect_left(range(trials, most), True, key=arrives)
            more = f"ask for {enough} or more, or "
        yield (
            f"WARNING: no searched trial is likely to reach full length: {trials} configurations"
            f" are too few for {len(self.ladder)} rungs with a scheduler.reduction of"
            f" {self.scheduler.reduction}; {more}lower it, or take a rung away"
        )


def promoted(scheduler: SchedulerConfig, searched: int, baselines: int) -> int:
    """Expected number of `searched` trials on a rung that are promoted.

    Baselines are ranked among them as if they were sampled too.
    """
    there, reduction = searched + baselines, scheduler.reduction
    if scheduler.kind == "promotion":
        # Some were promoted early and later fell behind: a third more in simulated searches of 8
        # to 100 trials.
        places = there // reduction * (1 + (1 - 1 / reduction) / 3)
    else:
        # The chance that the n-th trial is among the best of n; the first few are not compared.
        places = sum(
            1.0 if n < reduction else math.ceil(n / reduction) / n for n in range(1, there + 1)
        )
    return round(places * searched / max(there, 1))


def _described(rung: Fidelity, epochs: int) -> str:
    if rung.epochs == epochs:
        return f"full length: {epochs} epochs"
    text = f"rung: {rung.epochs} of {epochs} epochs"
    if rung.training_attack_steps is not None:
        text += f", training attack of at most {rung.training_attack_steps} steps"
    if rung.validation_attack_steps is not None:
        text += f", validation attack of at most {rung.validation_attack_steps} steps"
    if rung.validation_images is not None:
        text += f", {rung.validation_images} validation images"
    return text
