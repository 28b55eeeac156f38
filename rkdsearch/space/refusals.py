"""Refusals of settings that are legal one by one and contradict each other."""

from collections.abc import Sequence

from optuna.distributions import CategoricalDistribution

from rkdsearch import config as run
from rkdsearch.errors import SpaceError, did_you_mean
from rkdsearch.results.objectives import COSTS, OBJECTIVES
from rkdsearch.space import grammar
from rkdsearch.space.parameter import Parameter


def refuse(parsed: grammar.SpaceFile, parameters: Sequence[Parameter]) -> None:
    """Raise SpaceError where settings of the file do not go together."""
    _refuse_objectives(parsed)
    _refuse_metric(parsed)
    _refuse_beliefs(parsed)
    _refuse_priors(parsed)
    _refuse_minimum(parsed, parameters)


def _refuse_objectives(parsed: grammar.SpaceFile) -> None:
    """Raise SpaceError unless there are two objectives, one an accuracy, and every cost varies."""
    asked = parsed.objectives
    if len(set(asked)) != len(asked) or len(asked) < 2:
        raise SpaceError(
            f"objectives: two or more different ones are needed, got {asked}; there are"
            f" {', '.join(OBJECTIVES)}"
        )
    costs = [name for name in asked if name in COSTS]
    if len(costs) == len(asked):
        accuracies = [name for name in OBJECTIVES if name not in COSTS]
        raise SpaceError(
            f"objectives: one accuracy at least is needed, got {asked}; add one of"
            f" {', '.join(accuracies)}"
        )
    if costs and not any(name.split(".")[0] == "student" for name in parsed.search):
        raise SpaceError(
            f"objectives: {costs[0]} is the same for every searched student: nothing of"
            " `student` is searched; search student.name or student.width, or leave it out"
        )


def _refuse_metric(parsed: grammar.SpaceFile) -> None:
    """Raise SpaceError where `scheduler.metric` weighs what is no objective, or weighs nothing."""
    metric, objectives = parsed.scheduler.metric, [str(name) for name in parsed.objectives]
    for name in metric:
        if name not in objectives:
            raise SpaceError(
                f"scheduler.metric: must weigh the objectives {', '.join(objectives)};"
                f" {run.unknown_field(name, objectives)}"
            )
    if metric and not any(metric.values()):
        raise SpaceError(
            f"scheduler.metric: one weight at least must be > 0, got {metric}; leave it out for the"
            " objectives' mean"
        )


def _refuse_minimum(parsed: grammar.SpaceFile, parameters: Sequence[Parameter]) -> None:
    """Raise SpaceError where `sampler.minimum_per` names no choice that every run has."""
    if parsed.sampler.minimum_per and parsed.sampler.name == "grid":
        raise SpaceError(
            "sampler.minimum_per: a grid sampler proposes every combination in an order of its own;"
            " take tpe, or leave it out"
        )
    for name in parsed.sampler.minimum_per:
        found = next((p for p in parameters if p.name == name), None)
        if (
            found is None
            or found.when
            or not isinstance(found.distribution, CategoricalDistribution)
        ):
            choices = [
                p.name
                for p in parameters
                if isinstance(p.distribution, CategoricalDistribution) and not p.when
            ]
            raise SpaceError(
                f"sampler.minimum_per: {name} is no searched choice of every run; "
                + did_you_mean(
                    name, choices, f"there are {', '.join(choices)}" if choices else "leave it out"
                )
            )


def _refuse_priors(parsed: grammar.SpaceFile) -> None:
    """Raise SpaceError for a prior that nothing uses, or that makes other runs of baselines."""
    asked = {name for d in parsed.search.values() if d.when for name in d.when}
    for name, described in parsed.search.items():
        if described.prior is None:
            continue
        if parsed.sampler.beliefs == "none" or not parsed.first:
            lack = "which are none" if parsed.first else "and there is no baseline under `first`"
            raise SpaceError(
                f"search.{name}: a prior is used by `sampler.beliefs` alone, {lack}; set them to"
                " medium and name a baseline under `first`, or leave it out"
            )
        if name in {"method.name", *asked, *parsed.sampler.minimum_per}:
            raise SpaceError(
                f"search.{name}: a prior must not be given to what decides which parameters a run"
                " has, or who has its turn: a proposal near a baseline keeps the baseline's; leave"
                " it out"
            )


def _refuse_beliefs(parsed: grammar.SpaceFile) -> None:
    """Raise SpaceError where nothing can judge `sampler.beliefs`, or leaves room for them."""
    if parsed.sampler.beliefs == "none":
        return
    if parsed.scheduler.name == "none" or len(parsed.ladder) < 2:
        raise SpaceError(
            "sampler.beliefs: baselines are judged on the lowest rung, and there is none; give the"
            " ladder a rung below full length and take a scheduler, or leave it out"
        )
    if parsed.sampler.name in ("qmc", "grid"):
        raise SpaceError(
            f"sampler.beliefs: a {parsed.sampler.name} sampler proposes every point of its own;"
            " take tpe, or leave it out"
        )
