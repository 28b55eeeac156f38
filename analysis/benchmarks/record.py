"""The recorded table of digits runs: its growth, and agreement of cheap and full runs."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from curves import CAP, EPOCHS, LIFTED, Run, run_of
from rules import LENGTH, LOWER
from scipy.stats import kendalltau, spearmanr

from rkdsearch import config as run
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import NonFiniteLossError
from rkdsearch.execution.teachers import prepare
from rkdsearch.results.agreement import rank_agreement
from rkdsearch.search.teachers import overrides_of
from rkdsearch.space.parameter import Parameter
from rkdsearch.space.space import SearchSpace
from rkdsearch.training.trainer import Trainer

TABLE = Path(__file__).parent / "data" / "digits_runs.parquet"
DIGITS = Path(__file__).parents[2] / "search_spaces" / "digits.yaml"
# the first so many configurations are also trained on without the cap, with steps that were not
# made longer, and again
THOROUGH = 36
# every third configuration belongs to one method, in turn: its published setting first, then by
# turns one near it and one anywhere, so that beliefs in published settings can be replayed
NAMED = 3
# near: standard deviation of a number, as a share of its range; chance that a choice is kept
SPREAD, KEPT = 0.15, 0.7


@dataclass(frozen=True)
class Kind:
    """A way to train a configuration: its changes, and its parts.

    `names` says in the table what each of them belongs to.
    """

    changes: Mapping[str, Any]
    fidelities: tuple[Fidelity, ...]
    names: tuple[str, ...]


def kinds(number: int, attack_steps: int) -> Iterator[Kind]:
    """The runs of configuration `number`, with so many steps of the training attack.

    Within the cap, capped runs are full ones.
    """
    whole = tuple(
        Fidelity(epochs=until) for until in (LOWER[0].epochs, *(rung.epochs for rung in LENGTH))
    )
    capped = tuple(
        Fidelity(epochs=rung.epochs, training_attack_steps=rung.training_attack_steps)
        for rung in LOWER
    )
    names = ("capped", "capped", "capped", "continued")
    yield Kind({}, whole, ("full",) * 4)
    if attack_steps > CAP:
        end = 4 if number < THOROUGH else 3
        yield Kind({}, capped[:end], names[:end])
        if number < THOROUGH:
            yield Kind({"attack.steps": CAP}, whole[:3], ("unscaled",) * 3)
    if number < THOROUGH:
        yield Kind({"training.seed": 1}, whole, ("seed 1",) * 4)


def drawn(space: SearchSpace, number: int) -> tuple[str, dict[str, Any]]:
    """Origin of configuration `number`, and its hyperparameters.

    `space`: anywhere in the space; `published`: a baseline; `near` it; `method`: anywhere in its
    method. A function of the number alone.
    """
    rng = np.random.default_rng(number)
    if number % NAMED != NAMED - 1:
        return "space", space.sample(rng)
    methods = next(p for p in space.parameters if p.name == "method.name").ends()
    turn, place = divmod(number // NAMED, len(methods))
    published = next(
        dict(baseline.overrides)
        for baseline in space.baselines
        if baseline.overrides["method.name"] == methods[place]
    )
    if turn == 0:
        return "published", published
    near = turn % 2 == 1

    def choose(parameter: Parameter) -> Any:
        if parameter.name == "method.name":
            return methods[place]
        if not near:
            return parameter.draw(rng)
        return parameter.near(published[parameter.name], SPREAD, rng, KEPT)

    return "near" if near else "method", space.walk(choose)


def record(wanted: int, minutes: float, study: Path, file: Path = TABLE) -> int:
    """Add digits runs to the table; returns its number of configurations.

    Ends with `wanted` configurations or when the time is up.

    Configuration number i depends on i alone, so that the table grows the same whenever it is
    stopped: the full and capped runs of all configurations first, then the other runs of the first
    ones. A run that was cut off begins anew; the table is replaced as a whole after each run, and
    has only whole ones.
    """
    end = time.monotonic() + 60 * minutes
    space = SearchSpace.load(DIGITS)
    teachers = teachers_of(space, study)
    known = (
        pd.read_parquet(file) if file.exists() else pd.DataFrame({"configuration": [], "run": []})
    )
    done = set(zip(known["configuration"], known["run"], strict=True))
    wanted_runs = [
        (number, how, overrides, kind)
        for number in range(wanted)
        for how, overrides in [drawn(space, number)]
        for kind in kinds(number, overrides["attack.steps"])
    ]
    wanted_runs.sort(key=lambda run: bool(run[3].changes))
    for number, how, overrides, kind in wanted_runs:
        if (number, kind.names[-1]) in done:
            continue
        if time.monotonic() > end:
            break
        rows = [{"drawn": how, **row} for row in _rows(space, number, overrides, teachers, kind)]
        again = known["configuration"].eq(number) & known["run"].isin({row["run"] for row in rows})
        known = pd.concat([known[~again], pd.DataFrame(rows)], ignore_index=True)
        done |= {(number, row["run"]) for row in rows} | {(number, kind.names[-1])}
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        known.to_parquet(new, index=False)
        new.replace(file)
        print(
            f"{number}, {kind.names[-1]}, {overrides['method.name']}:"
            f" {rows[-1]['cpu_seconds']:.1f} s of CPU",
            flush=True,
        )
    return len({n for n, _ in done})


def teachers_of(space: SearchSpace, study: Path) -> dict[str, Any]:
    """Overrides that name the space's teachers, trained in the study's folder if missing."""
    return overrides_of(
        {step.role: step for step in prepare(study, space) if step.measured is not None}
    )


def _rows(
    space: SearchSpace,
    number: int,
    overrides: Mapping[str, Any],
    teachers: Mapping[str, Any],
    kind: Kind,
) -> list[dict[str, Any]]:
    """A row for each validated epoch.

    Where the loss became infinite, one more row of epoch 0 without accuracies.
    """
    config = space.config(
        run.merge(run.merge(overrides, teachers), kind.changes), f"configuration {number}"
    )
    fixed = {
        "configuration": number,
        "overrides": json.dumps(overrides),
        "method": overrides["method.name"],
        "training_attack_steps": overrides["attack.steps"],
        "seed": config.training.seed,
        "teacher_sha256": teachers["teachers.robust.sha256"],
    }
    rows: list[dict[str, Any]] = []
    started, steps = time.process_time(), 0
    try:
        for epoch in Trainer(config, fidelities=kind.fidelities).epochs():
            steps += epoch.training_attack_steps
            if epoch.clean_accuracy is not None:
                name = next(
                    name
                    for name, fidelity in zip(kind.names, kind.fidelities, strict=True)
                    if epoch.epoch <= fidelity.epochs
                )
                rows.append(
                    {
                        **fixed,
                        "run": name,
                        "epoch": epoch.epoch,
                        "attack_steps": epoch.training_attack_steps,
                        # over its epochs: the run's cost in numbers that no other load changes
                        "attack_steps_so_far": steps,
                        "clean_accuracy": epoch.clean_accuracy,
                        "robust_accuracy": epoch.robust_accuracy,
                        "images": epoch.images,
                        "cpu_seconds": time.process_time() - started,
                    }
                )
    except NonFiniteLossError as error:
        print(f"{number}: {error}")
        nothing = {
            "clean_accuracy": math.nan,
            "robust_accuracy": math.nan,
            "images": 0,
            "cpu_seconds": time.process_time() - started,
        }
        rows.append(
            {
                **fixed,
                "run": kind.names[-1],
                "epoch": 0,
                "attack_steps": 0,
                "attack_steps_so_far": steps,
                **nothing,
            }
        )
    return rows


# ----------------------------------------------------------------------------------- how they agree


def agreement(file: Path) -> str:
    """Rank correlation of each cheap run with the full one.

    Over all configurations, and over the better half by the full run.
    """
    runs: dict[str, dict[int, Run]] = {}
    table = pd.read_parquet(file).sort_values("epoch")
    for number, rows in table.groupby("configuration"):
        for name in rows["run"].unique():
            found = run_of(rows, name)
            if found is not None and found.epochs[0] > 0:
                runs.setdefault(name, {})[int(number)] = found  # type: ignore[arg-type]  # pandas cannot know what a column holds
    full = runs["full"]
    seconds = table[table["run"].eq("full") & table["epoch"].eq(EPOCHS)].set_index("configuration")[
        "cpu_seconds"
    ]
    # An attack within the cap is not capped: its full run is its capped one.
    capped = {**full, **runs.get("capped", {})}
    looks = [(f"{epochs} epochs", "full", full, epochs) for epochs in (2, 6, 18)]
    looks += [
        (f"{epochs} epochs, {CAP} attack steps", "capped", capped, epochs) for epochs in (2, 6, 18)
    ]
    looks += [
        (f"18 epochs, {CAP} steps not made longer", "unscaled", runs.get("unscaled", {}), LIFTED)
    ]
    looks += [
        ("cap lifted after 18 epochs", "continued", runs.get("continued", {}), EPOCHS),
        ("another seed", "seed 1", runs.get("seed 1", {}), EPOCHS),
    ]
    columns = "mean accuracy: rho  tau   better half   robust: rho  tau   better half   CPU"
    lines = [f"{'rank correlation with the full run':38} {'n':>4}   {columns}"]
    for title, name, look, epochs in looks:
        numbers = [
            n
            for n in full
            if n in look and full[n].epochs[-1] == EPOCHS and look[n].epochs[-1] >= epochs
        ]
        if len(numbers) < 8:
            continue
        cheap, dear = (
            np.array([a[n].values_at(e) for n in numbers])
            for a, e in ((look, epochs), (full, EPOCHS))
        )
        cells = [
            _correlations(a, b, dear.mean(axis=1))
            for a, b in ((cheap.mean(axis=1), dear.mean(axis=1)), (cheap[:, 1], dear[:, 1]))
        ]
        cost = table[table["run"].eq(name) & table["epoch"].eq(epochs)].set_index("configuration")[
            "cpu_seconds"
        ]
        share = (cost / seconds).median()
        lines.append(
            f"{title:38} {len(numbers):>4}   {cells[0]:>34}   {cells[1]:>27}   {share:.2f}"
        )
    return "\n".join(lines)


def _correlations(
    cheap: np.ndarray[Any, Any], dear: np.ndarray[Any, Any], quality: np.ndarray[Any, Any]
) -> str:
    half = quality >= np.median(quality)
    return (
        f"{spearmanr(cheap, dear)[0]:6.3f} {kendalltau(cheap, dear)[0]:5.2f}  "
        f" {spearmanr(cheap[half], dear[half])[0]:11.3f}"
    )


def within_and_between(file: Path) -> str:
    """Rank correlation of each rung with the full run, within a method and between methods.

    `rank_agreement` has both.
    """
    table = pd.read_parquet(file)
    full = table[table["run"].eq("full") & table["epoch"].eq(EPOCHS)].set_index("configuration")
    # within the cap, the capped run is the full one
    capped = table["run"].eq("capped") | (
        table["run"].eq("full") & table["training_attack_steps"].le(CAP)
    )
    lines = [
        f"{'rank correlation of robust accuracy with the full run':54} {'n':>4} within  between"
    ]
    for name, chosen in (("", table["run"].eq("full")), (f", {CAP} attack steps", capped)):
        for epoch in (2, 6, 18):
            look = table[chosen & table["epoch"].eq(epoch)].set_index("configuration")
            found = rank_agreement(look["robust_accuracy"], full["robust_accuracy"], full["method"])
            if found.within is None or found.between is None:
                continue
            lines.append(
                f"{f'{epoch} epochs{name}':54} {found.trials:>4} {found.within:6.3f} "
                f" {found.between:7.3f}"
            )
    return "\n".join(lines)
