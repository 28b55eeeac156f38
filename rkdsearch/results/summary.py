"""What a study's rows say: the front, the cost, who survived, and which test results may be compared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rkdsearch.errors import StudyError
from rkdsearch.results import objectives as known
from rkdsearch.results.intervals import Estimate, paired_difference
from rkdsearch.results.pareto import hypervolume, non_dominated
from rkdsearch.results.store import Store

CLEAN, ROBUST = "metric.clean_accuracy", "metric.robust_accuracy"
PAIR = (CLEAN, ROBUST)
WORST_CLASS = "metric.worst_class_accuracy"
ACCURACIES = (CLEAN, ROBUST, WORST_CLASS)
NO_LIMITS: Mapping[str, float] = MappingProxyType({})
METHOD = "config.method.name"


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that a study's folder says at one moment."""

    folder: Path
    description: dict[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    rungs: pd.DataFrame
    evaluations: pd.DataFrame
    damaged: tuple[Path, ...]

    @property
    def name(self) -> str:
        """As the search calls it; a copied folder without its `study.json` is called by its own name."""
        return str(self.description.get("name") or self.folder.resolve().name)

    @property
    def limits(self) -> dict[str, float]:
        """What a full-length trial must keep to, to be on the front: an accuracy at least, a cost at most, by name."""
        found = self.description.get("constraints")
        asked = found if isinstance(found, dict) else {}
        return {
            name: float(value)
            for name, value in asked.items()
            if name in known.OBJECTIVES and isinstance(value, int | float)
        }

    @property
    def objectives(self) -> tuple[str, ...]:
        """What names its front; clean and robust accuracy where it does not say two of ours."""
        found = self.description.get("objectives")
        asked = [str(name) for name in found] if isinstance(found, list) else []
        return (
            tuple(asked) if len(asked) > 1 and set(asked) <= set(known.OBJECTIVES) else known.USUAL
        )

    @property
    def front(self) -> pd.DataFrame:
        """Its front, in its objectives, within its limits."""
        return front(self.trials, self.objectives, self.limits)

    @property
    def volume(self) -> float:
        """The hypervolume of its front above 0, in its objectives' merits: 1 would be a student that is never wrong, and costs nothing."""
        return volume(self.front, self.objectives)

    @property
    def tests(self) -> pd.DataFrame:
        """The test results that stand."""
        return tests(self.evaluations)


def read(folder: Path) -> Study:
    """Read a study, running, finished, copied or empty; nothing is written. Raises StudyError where there is no such folder."""
    if not folder.is_dir():
        raise StudyError(
            f"{folder}: a study is a folder that `rkdsearch tune` made, but there is none; check"
            " the path"
        )
    store = Store(folder)
    tables = (store.trials(), store.epochs(), store.rungs(), store.evaluations())
    return Study(folder, store.description(), *tables, damaged=tuple(store.damaged))


def front(
    trials: pd.DataFrame,
    objectives: Sequence[str] = known.USUAL,
    limits: Mapping[str, float] = NO_LIMITS,
) -> pd.DataFrame:
    """The trials that no other dominates, by the first objective, the best last. `limits` are what they must keep to, by objective.

    Only finished trials count: metrics of a stopped trial come from another length and perhaps a
    weaker attack. Where contenders were repeated, and all repeats are over, they alone count, and
    their metrics here are means over the fresh seeds: what chose them must not judge them too.
    """
    finished = _judged(trials)
    for name, limit in limits.items():
        objective = known.OBJECTIVES[name]
        finished = finished[objective.holds(finished[objective.column].astype(float), limit)]
    points = _merits(finished, objectives)
    kept = non_dominated(points)
    order = np.lexsort((finished["trial_id"][kept], *points[kept].T[::-1]))
    return finished[kept].iloc[order].reset_index(drop=True)


def _merits(trials: pd.DataFrame, objectives: Sequence[str]) -> NDArray[np.float64]:
    """The trials' places (N, D) in these objectives, all maximised."""
    return known.merits(
        {name: trials[known.OBJECTIVES[name].column].astype(float) for name in objectives}
    )


def configurations(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials without the repeats; once all repeats are over, who was repeated has the means over its fresh seeds for metrics.

    `seeds`, `failed`, `clean_sd` and `robust_sd` are those of `replicated`, and null for whoever
    stands for one run.
    """
    own, repeats = (trials[(trials["origin"] == "replicate") == again] for again in (False, True))
    over = bool(repeats["status"].isin(("finished", "failed")).all())
    spread = replicated(trials)[["seeds", "failed", "clean_sd", "robust_sd"]].astype(
        {"seeds": "Int64", "failed": "Int64"}
    )
    found = own.join(spread if over else spread.iloc[:0], on="ordinal")
    repeated = found["seeds"].notna()
    means = repeats[repeats["status"] == "finished"].groupby("ordinal")[list(ACCURACIES)].mean()
    for column in ACCURACIES:
        found.loc[repeated, column] = (
            found.loc[repeated, "ordinal"].map(means[column]).astype(float)
        )
    return found


def _judged(trials: pd.DataFrame) -> pd.DataFrame:
    """Finished configurations, with the metrics by which the front is named."""
    found = configurations(trials)
    finished = found[found["status"] == "finished"]
    return finished[finished["seeds"].notna()] if found["seeds"].notna().any() else finished


def volume(front: pd.DataFrame, objectives: Sequence[str] = known.USUAL) -> float:
    """The hypervolume of a front above 0: 1 would be a student that is never wrong, attacked or not, and as small as nothing is."""
    return hypervolume(_merits(front, objectives), [0.0] * len(objectives))


@dataclass(frozen=True)
class Cost:
    """What a study has used so far: trials by status, and their time added up. `span_seconds` is first start to last record."""

    trials: dict[str, int]
    device_seconds: float
    trial_seconds: float
    span_seconds: float


def cost(trials: pd.DataFrame) -> Cost:
    """Add up the trials."""
    counts = trials["status"].value_counts()
    known = [
        status
        for status in ("finished", "stopped", "failed", "running", "paused")
        if status in counts
    ]
    span = (trials["run.updated"].max() - trials["run.started"].min()).total_seconds()
    return Cost(
        trials={status: int(counts[status]) for status in known},
        device_seconds=float(trials["run.device_seconds"].sum()),
        trial_seconds=float(trials["run.wall_seconds"].sum()),
        span_seconds=0.0 if pd.isna(span) else float(span),
    )


def counted(trials: pd.DataFrame) -> str:
    """How many trials there are, by status, and how many repeats beside them."""
    own = configurations(trials)
    counts = ", ".join(f"{count} {status}" for status, count in cost(own).trials.items())
    repeats = len(trials) - len(own)
    return (
        f"{len(own)} trials"
        + (f" ({counts})" if counts else "")
        + (f" and {repeats} repeats with fresh seeds" if repeats else "")
    )


def methods(trials: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """One row a method: trials, finished, on_front, best validated accuracies of finished trials, reconstructed; most robust first.

    Repeats are left out: more draws of one setting would make the best of a method better.
    """
    trials = trials[trials["origin"] != "replicate"]
    table = trials.assign(method=method_of(trials), done=trials["status"] == "finished")
    table["on_front"] = table["trial_id"].isin(front["trial_id"])
    table[list(PAIR)] = table[list(PAIR)].where(table["done"])
    table["reconstructed"] = table["reconstructed"].fillna(False)
    grouped = table.groupby("method", sort=True).agg(
        trials=("trial_id", "size"),
        finished=("done", "sum"),
        on_front=("on_front", "sum"),
        clean=(CLEAN, "max"),
        robust=(ROBUST, "max"),
        device_seconds=("run.device_seconds", "sum"),
        reconstructed=("reconstructed", "any"),
    )
    return grouped.reset_index().sort_values(
        ["robust", "method"], ascending=[False, True], kind="stable", ignore_index=True
    )


def method_of(trials: pd.DataFrame) -> "pd.Series[str]":
    """Each trial's method; `unknown` where the rows carry no configuration."""
    if METHOD not in trials:
        return pd.Series("unknown", index=trials.index, dtype="str")
    return trials[METHOD].fillna("unknown")


def survival(rungs: pd.DataFrame) -> pd.DataFrame:
    """One row a rung: how many trials reached it, how many each decision (a trial's last there) took, the best accuracies seen there."""
    # paused first, promoted later: promoted
    last = rungs.drop_duplicates(["trial_id", "epochs"], keep="last")
    best = last.groupby("epochs").agg(
        validation_attack_steps=("validation_attack_steps", "max"),
        reached=("trial_id", "size"),
        clean=("clean_accuracy", "max"),
        robust=("robust_accuracy", "max"),
    )
    decisions = pd.crosstab(last["epochs"], last["decision"])
    for decision in ("promoted", "continued", "paused", "stopped"):
        best[decision] = decisions.get(decision, 0)
    return best.reset_index()


def replicated(trials: pd.DataFrame) -> pd.DataFrame:
    """One row a configuration that was repeated, by ordinal: fresh seeds, mean and sample deviation of both accuracies over them.

    `failed` counts the repeats that are not among them: whoever diverges now and then is judged by
    its good runs alone. `clean_luck` and `robust_luck` say how much better the run was that made it
    a contender: the best of many is a lucky one. They are null for baselines, which no result
    chose.
    """
    finished = trials[trials["status"] == "finished"]
    failed = (
        trials[(trials["origin"] == "replicate") & (trials["status"] == "failed")]
        .groupby("ordinal")
        .size()
    )
    fresh = finished[finished["origin"] == "replicate"].groupby("ordinal")
    table = fresh.agg(
        seeds=("trial_id", "size"),
        clean=(CLEAN, "mean"),
        clean_sd=(CLEAN, "std"),
        robust=(ROBUST, "mean"),
        robust_sd=(ROBUST, "std"),
    )
    chosen = (
        finished[finished["origin"] != "replicate"].drop_duplicates("ordinal").set_index("ordinal")
    )
    chosen = chosen.reindex(table.index)
    best = chosen[[CLEAN, ROBUST]].where(chosen["origin"] != "baseline")
    return table.assign(
        failed=failed.reindex(table.index, fill_value=0),
        clean_luck=best[CLEAN] - table["clean"],
        robust_luck=best[ROBUST] - table["robust"],
    )


@dataclass(frozen=True)
class Noise:
    """What a training seed alone does: pooled sample deviations, and how lucky the runs were that chose the contenders, on average.

    `failed` repeats are left out of all means, and baselines, which no result chose, of the luck.
    """

    configurations: int
    runs: int
    failed: int
    clean_sd: float | None
    robust_sd: float | None
    clean_luck: float | None
    robust_luck: float | None


def noise(trials: pd.DataFrame) -> Noise | None:
    """Over all repeated configurations; deviations are None where each has one fresh seed, luck where all are baselines.

    None where nothing was repeated.
    """
    table = replicated(trials)
    if table.empty:
        return None
    free = table["seeds"] - 1

    def pooled(deviation: str) -> float | None:
        return (
            float(((free * table[deviation].fillna(0) ** 2).sum() / free.sum()) ** 0.5)
            if free.sum()
            else None
        )

    luck = table[["clean_luck", "robust_luck"]].dropna().mean()
    return Noise(
        configurations=len(table),
        runs=int(table["seeds"].sum()),
        failed=int(((trials["origin"] == "replicate") & (trials["status"] == "failed")).sum()),
        clean_sd=pooled("clean_sd"),
        robust_sd=pooled("robust_sd"),
        clean_luck=None if pd.isna(luck["clean_luck"]) else float(luck["clean_luck"]),
        robust_luck=None if pd.isna(luck["robust_luck"]) else float(luck["robust_luck"]),
    )


def tests(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The test results that stand: of each network its newest weights, and of each attack on it the most images, the newest among equals."""
    return _latest(
        _newest_weights(evaluations),
        ["trial_id", "checkpoint", "attack"],
        "subset_sha256",
        by=["images", "evaluated"],
    )


def _newest_weights(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Without what was found of a network that has since been trained on: its file is another one."""
    return _latest(evaluations, ["trial_id", "checkpoint"], "weights_sha256", by=["evaluated"])


def _latest(rows: pd.DataFrame, groups: list[str], column: str, by: list[str]) -> pd.DataFrame:
    """The rows of each group whose `column` says what its last row says, in the order of `by`; nulls come first."""
    value = rows[column].fillna("")
    ordered = rows.assign(value=value).sort_values(by, kind="stable", na_position="first")
    last = ordered.groupby(groups, dropna=False)["value"].transform("last")
    return rows[value == last.loc[rows.index]]


@dataclass(frozen=True)
class Comparison:
    """Two students on the same test images under the same attack: accuracy of the first minus accuracy of the second."""

    first: str
    second: str
    attack: str
    images: int
    difference: Estimate


def compare(evaluations: pd.DataFrame, first: str, second: str) -> list[Comparison]:
    """Pair two trials' best checkpoints on every attack, on the most images that both saw, seed for seed the lowest; else nothing."""
    found = _newest_weights(evaluations)
    best = found[
        (found["checkpoint"] == "best")
        & found["per_image"].notna()
        & found["subset_sha256"].notna()
    ]
    same = ["attack", "norm", "eps", "test_attack_steps", "seed", "subset_sha256"]
    sides = [best.loc[best["trial_id"] == trial, [*same, "per_image"]] for trial in (first, second)]
    # the keys of clean rows hold nulls, which pandas joins to nulls: that is meant
    pairs = sides[0].merge(sides[1], on=same)
    pairs = pairs.assign(images=pairs["per_image_x"].str.len()).sort_values(
        ["images", "seed"], ascending=[False, True], kind="stable"
    )
    pairs = pairs.drop_duplicates("attack").sort_values("attack", kind="stable")
    return [
        Comparison(first, second, attack, len(a), paired_difference(a, b))
        for attack, a, b in zip(
            pairs["attack"], pairs["per_image_x"], pairs["per_image_y"], strict=True
        )
        if len(a) == len(b) > 0
    ]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values, None where something is missing."""
    plain = frame.astype(object)
    return [
        {str(key): value for key, value in row.items()}
        for row in plain.where(frame.notna(), None).to_dict("records")
    ]


def parse(text: object) -> dict[str, Any]:
    """The object in a JSON column; empty for a null or for text of another kind."""
    found = _json(text)
    return found if isinstance(found, dict) else {}


def signs(text: object) -> list[str]:
    """The texts in the JSON list of an evaluation's `flags`."""
    found = _json(text)
    return [str(sign) for sign in found] if isinstance(found, list) else []


def _json(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
