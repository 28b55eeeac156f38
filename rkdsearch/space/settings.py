"""Settings of the search itself: replicates, constraints, sampler, scheduler, resources."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rkdsearch.results.objectives import OBJECTIVES
from rkdsearch.section import Section

LEAST = 0.0001  # of a CPU or a GPU
Confidence = Literal["low", "medium", "high"]


@dataclass(frozen=True)
class Strength:
    """Meaning of a confidence.

    A belief is judged once `trials` searched ones stand on the lowest rung. It holds where at most
    `outranked` of them, as a share, rank above its baseline. Then `first` proposals are made near
    each such baseline, and `share` of all that follow.
    """

    trials: int
    outranked: float
    first: int
    share: float


STRENGTHS: Mapping[str, Strength] = {
    "low": Strength(trials=8, outranked=0.125, first=1, share=0.25),
    "medium": Strength(trials=6, outranked=0.25, first=2, share=0.5),
    "high": Strength(trials=6, outranked=0.25, first=4, share=0.5),
}


class Replicates(Section):
    """Replicates of the contenders, trained before the front is chosen.

    Without them the front has a selection bias: the best of many noisy numbers is partly luck.
    """

    seeds: int = Field(
        0,
        ge=0,
        le=100,
        description="replicates of each contender; 0: the front is chosen from one run each",
    )
    contenders: int = Field(
        8,
        ge=2,
        description="most contenders: the best finished trials by non-dominated fronts",
    )
    baselines: bool = Field(
        True,
        description=(
            "replicate baselines too, so that each is compared by as many runs as a contender"
        ),
    )
    race: int = Field(
        0,
        ge=0,
        le=100,
        description=(
            "replicates of each contender at first; the better half, and all that none dominates,"
            " get as many again, and so on up to `seeds`. 0: all get `seeds` at once"
        ),
    )

    @model_validator(mode="after")
    def _race_is_shorter(self) -> Self:
        if self.race and self.race >= self.seeds:
            raise ValueError(
                f"race must be below seeds, or 0 for no race, got race {self.race} and seeds"
                f" {self.seeds}"
            )
        return self

    @property
    def rounds(self) -> tuple[int, ...]:
        """Replicates that each configuration of a round has at its end: 2, 4, 8 of a race of 2."""
        found = [self.race] if self.race else []
        while found and found[-1] * 2 < self.seeds:
            found.append(found[-1] * 2)
        return (*found, self.seeds) if self.seeds else ()

    def compared(self, finished: int, families: int, methods: int) -> tuple[int, int]:
        """Expected configurations that are replicated: contenders, and baselines beside them.

        Of `finished` trials, the contenders and the best of each of `methods` that is not among
        them, all but one at most; of baselines the best of each of their `families`.
        """
        baselines = min(families if self.baselines else 0, finished)
        return min(self.contenders + max(0, methods - 1), finished - baselines), baselines

    def runs(self, contenders: int, baselines: int = 0) -> int:
        """Expected replicates of so many contenders, and of baselines that take no place."""
        total, before = 0, 0
        for seeds in self.rounds:
            total += (seeds - before) * contenders
            before, contenders = seeds, -(-contenders // 2)
        return total + self.seeds * baselines


class Constraints(Section):
    """Limits that a trial must keep to be on the front.

    Costs are known before training, so no trial above a limit is proposed; a baseline above one is
    still trained.
    """

    parameters: int | None = Field(
        None, ge=1, description="the student's largest number of parameters"
    )
    multiply_adds: int | None = Field(
        None, ge=1, description="the student's largest number of multiply-adds for one image"
    )
    clean_accuracy: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="at least, on validation"
    )
    robust_accuracy: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="at least, on validation"
    )

    @property
    def limits(self) -> Mapping[str, float]:
        """The limits by objective: an accuracy's smallest value, a cost's largest."""
        return self.model_dump(exclude_none=True)

    def hold(self, value: Callable[[str], float]) -> bool:
        """True where `value(objective)` keeps every limit."""
        return all(
            OBJECTIVES[name].holds(value(name), limit) for name, limit in self.limits.items()
        )


class SamplerConfig(Section):
    """The sampler, which proposes hyperparameters."""

    name: Literal["tpe", "nsga2", "nsga3", "gp", "qmc", "random", "grid"] = "tpe"
    startup: int = Field(
        10,
        ge=1,
        description=(
            "tpe, gp: trials, baselines included, that are measured before the model is used;"
            " nsga2, nsga3: the population, 2 or more"
        ),
    )
    history: int = Field(
        1000,
        ge=1,
        description=(
            "largest number of trials in the sampler history: those that were trained longest, and"
            " the latest"
        ),
    )
    minimum_per: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {},
        description=(
            "a searched choice and the number of proposals that each of its values gets first, by"
            " turns, such as {method.name: 4}; halving then promotes the best of each value before"
            " it compares them with one another"
        ),
    )
    beliefs: Literal["none", Confidence] = Field(
        "none",
        description=(
            "confidence in the baselines as good settings: proposals near each, trained to full"
            " length at once, while few searched trials outrank it on the lowest rung; low: one"
            " near each, then a quarter of the proposals, medium: two, then half, high: four, then"
            " half"
        ),
    )
    stopped: Literal["by_rung", "ignored"] = Field(
        "by_rung",
        description=(
            "trials short of full length in the sampler history: by_rung = ranked within their rung"
            " and below every trial of a higher rung; ignored = left out"
        ),
    )

    @model_validator(mode="after")
    def _population_has_parents(self) -> Self:
        if self.name in ("nsga2", "nsga3") and self.startup < 2:
            raise ValueError(
                f"startup must be >= 2 where name is {self.name}: it is the population, got"
                f" {self.startup}"
            )
        return self


class SchedulerConfig(Section):
    """The scheduler, which decides at each rung: promoted, paused, stopped or continued."""

    name: Literal["moasha", "asha", "none"] = "moasha"
    kind: Literal["promotion", "stopping"] = Field(
        "promotion",
        description=(
            "promotion: every trial is paused at its rung, and the best are promoted; stopping: a"
            " trial is stopped at a rung only where it ranks low"
        ),
    )
    reduction: int = Field(
        4, ge=2, description="reduction factor eta: the best 1/eta of a rung are promoted"
    )
    brackets: int = Field(
        1,
        ge=1,
        description=(
            "number of rungs on which searched trials begin: one in `reduction` begins a rung"
            " higher, of these one in `reduction` two rungs higher, and so on; a hedge against"
            " misleading low rungs"
        ),
    )
    capped: Literal["afresh", "continued"] = Field(
        "afresh",
        description=(
            "a trial promoted past a cap on its training attack: afresh = is trained from the start"
            " with the attack as searched; continued = continues from its checkpoint, which is"
            " cheaper, but its result depends on the weaker attacks before"
        ),
    )
    metric: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description=(
            "asha: weights of the objectives in the sum that ranks trials; none: their mean"
        ),
    )


class Resources(Section):
    """Resources of one trial. More than one process train one student together."""

    cpu: float = Field(1, gt=0, description="CPUs of one process")
    gpu: float = Field(0, ge=0, description="GPUs of one process; fractions share a GPU")
    processes: int = Field(1, ge=1, description="processes of one trial")
    max_failures: int = Field(
        3, ge=0, description="retries of a trial whose worker or node was lost"
    )

    @field_validator("cpu", "gpu")
    @classmethod
    def _ray_can_count_it(cls, value: float, info: ValidationInfo) -> float:
        if 0 < value < LEAST:
            raise ValueError(
                f"must be {LEAST:g} or more, which is Ray's smallest share, got {value}"
            )
        if info.field_name == "gpu" and value > 1 and value != int(value):
            raise ValueError(
                f"must be whole where it is above 1, or a share below 1, as Ray grants GPUs, got"
                f" {value:g}; one trial on several takes `processes`"
            )
        return value

    @property
    def devices(self) -> float:
        """Devices of one trial: the GPUs of its processes, or one CPU each where there are none."""
        return self.processes * (self.gpu or 1.0)
