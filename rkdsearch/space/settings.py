"""The search's own settings, beside the space: ladder, sampler, scheduler, constraints, repeats, resources."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rkdsearch.results.objectives import OBJECTIVES


class Setting(BaseModel):
    """Frozen, and without room for unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Replicates(Setting):
    """The contenders once more with fresh seeds, before the front is named: the best of many noisy numbers is a lucky one."""

    seeds: int = Field(
        0,
        ge=0,
        le=100,
        description="fresh seeds of each contender; 0: the front is named by one run each",
    )
    contenders: int = Field(
        8,
        ge=2,
        description="at most so many, the best of the finished trials by non-dominated fronts",
    )
    baselines: bool = Field(
        True,
        description=(
            "the entries of `first` as well, so that as many runs of a published setting are"
            " compared"
        ),
    )


class Constraints(Setting):
    """What a trial must satisfy to be on the front. Costs are known before training: no proposal has more, and a baseline stays a baseline."""

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
        """What is asked, by objective: an accuracy at least, a cost at most."""
        return self.model_dump(exclude_none=True)

    def hold(self, value: Callable[[str], float]) -> bool:
        """Whether a student whose accuracies and costs are these `value`s, by objective, satisfies them all."""
        return all(
            OBJECTIVES[name].holds(value(name), limit) for name, limit in self.limits.items()
        )


class SamplerConfig(Setting):
    """Who proposes."""

    name: Literal["tpe", "nsga2", "nsga3", "gp", "qmc", "random"] = "tpe"
    startup: int = Field(10, ge=1, description="tpe, gp: random proposals before the model speaks")
    history: int = Field(
        1000,
        ge=1,
        description=(
            "at most so many trials are shown to the sampler: those that went farthest, and the"
            " latest"
        ),
    )
    stopped: Literal["by_rung", "ignored"] = Field(
        "by_rung",
        description=(
            "how trials short of full length are shown: by_rung = ranked within their rung and"
            " below every trial that went further; ignored = not at all"
        ),
    )


class SchedulerConfig(Setting):
    """Who stops."""

    name: Literal["moasha", "asha", "none"] = "moasha"
    kind: Literal["promotion", "stopping"] = Field(
        "promotion",
        description=(
            "promotion pauses every trial at its rung and lets the best go on; stopping lets"
            " newcomers run on unless they rank low"
        ),
    )
    reduction: int = Field(4, ge=2, description="one of so many goes on")
    brackets: int = Field(
        1,
        ge=1,
        description=(
            "searched trials begin on so many rungs: one of every `reduction` begins a rung higher,"
            " of these one of every `reduction` two rungs higher, and so on; a hedge against lowest"
            " rungs that mislead"
        ),
    )
    capped: Literal["afresh", "continued"] = Field(
        "afresh",
        description=(
            "what a trial does that is promoted past a rung's cap on its training attack: afresh ="
            " it is trained anew with the attack as searched; continued = it goes on from its"
            " checkpoint, cheaper, and its result has a history of weaker attacks"
        ),
    )
    metric: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description=(
            "asha: the one number to rank by, a weighted sum of objectives; none: their mean"
        ),
    )


class Resources(Setting):
    """What one trial takes. `processes` > 1 makes it a gang with Accelerate in each."""

    cpu: float = Field(1, gt=0, description="CPUs of one process")
    gpu: float = Field(0, ge=0, description="GPUs of one process; fractions share a GPU")
    processes: int = Field(1, ge=1, description="processes of one trial")
    max_failures: int = Field(
        3, ge=0, description="how often a trial whose worker or node was lost is started again"
    )

    @property
    def devices(self) -> float:
        """What one trial holds: a GPU's share each process; where it asks none, a processor each."""
        return self.processes * (self.gpu or 1.0)
