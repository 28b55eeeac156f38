"""What a study's rows say: the front, the cost, who survived, and which test results may be compared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from rkdsearch.errors import StudyError
from rkdsearch.results.intervals import Estimate, paired_difference
from rkdsearch.results.pareto import hypervolume, non_dominated
from rkdsearch.results.store import Store

CLEAN, ROBUST = "metric.clean_accuracy", "metric.robust_accuracy"
OBJECTIVES = (CLEAN, ROBUST)
WORST_CLASS = "metric.worst_class_accuracy"
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
        """What a full-length trial must reach to be on the front: column -> at least."""
        found = self.description.get("constraints")
        asked = found if isinstance(found, dict) else {}
        return {f"metric.{name}": float(value) for name, value in asked.items() if f"metric.{name}" in OBJECTIVES}

    @property
    def front(self) -> pd.DataFrame:
        """Its front, within its limits."""
        return front(self.trials, limits=self.limits)


def read(folder: Path) -> Study:
    """Read a study, running, finished, copied or empty; nothing is written. Raises StudyError where there is no such folder."""
    if not folder.is_dir():
        raise StudyError(f"{folder}: a study is a folder that `rkdsearch tune` made, but there is none; check the path")
    store = Store(folder)
    tables = (store.trials(), store.epochs(), store.rungs(), store.evaluations())
    return Study(folder, store.description(), *tables, damaged=tuple(store.damaged))


def front(trials: pd.DataFrame, objectives: Sequence[str] = OBJECTIVES, limits: Mapping[str, float] = NO_LIMITS) -> pd.DataFrame:
    """The trials that no other dominates, by the first objective; every objective is maximised. `limits` are what a column must reach.

    Only finished trials count: metrics of a stopped trial come from another length and perhaps a weaker attack. Where contenders were
    repeated, and all repeats are over, they alone count, and their metrics here are means over the fresh seeds: what chose them must not
    judge them too.
    """
    finished = _judged(trials)
    for column, least in limits.items():
        finished = finished[finished[column] >= least]
    kept = finished[non_dominated(finished[list(objectives)])]
    return kept.sort_values([*objectives, "trial_id"], kind="stable", ignore_index=True)


def _judged(trials: pd.DataFrame) -> pd.DataFrame:
    """Finished configurations, with the metrics by which the front is named."""
    finished = trials[(trials["status"] == "finished") & (trials["origin"] != "replicate")]
    repeats = trials[trials["origin"] == "replicate"]
    over = repeats[repeats["status"] == "finished"]
    if over.empty or not repeats["status"].isin(("finished", "failed")).all():
        return finished
    means = over.groupby("ordinal")[[*OBJECTIVES, WORST_CLASS]].mean()
    finished = finished[finished["ordinal"].isin(means.index)].copy()
    finished[means.columns] = means.loc[finished["ordinal"]].to_numpy()
    return finished


def volume(front: pd.DataFrame) -> float:
    """The hypervolume of a front above (0, 0): 1 would be a student that is never wrong, attacked or not."""
    return hypervolume(front[list(OBJECTIVES)])


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
    known = [status for status in ("finished", "stopped", "failed", "running", "paused") if status in counts]
    span = (trials["run.updated"].max() - trials["run.started"].min()).total_seconds()
    return Cost(
        trials={status: int(counts[status]) for status in known},
        device_seconds=float(trials["run.device_seconds"].sum()),
        trial_seconds=float(trials["run.wall_seconds"].sum()),
        span_seconds=0.0 if pd.isna(span) else float(span),
    )


def methods(trials: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """One row a method: trials, finished, on_front, best validated accuracies of finished trials, reconstructed; most robust first.

    Repeats are left out: more draws of one setting would make the best of a method better.
    """
    trials = trials[trials["origin"] != "replicate"]
    table = trials.assign(method=method_of(trials), done=trials["status"] == "finished")
    table["on_front"] = table["trial_id"].isin(front["trial_id"])
    table[list(OBJECTIVES)] = table[list(OBJECTIVES)].where(table["done"])
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
    return grouped.reset_index().sort_values(["robust", "method"], ascending=[False, True], kind="stable", ignore_index=True)


def method_of(trials: pd.DataFrame) -> "pd.Series[str]":
    """Each trial's method; `unknown` where the rows carry no configuration."""
    if METHOD not in trials:
        return pd.Series("unknown", index=trials.index, dtype="str")
    return trials[METHOD].fillna("unknown")


def survival(rungs: pd.DataFrame) -> pd.DataFrame:
    """One row a rung: how many trials reached it, how many each decision (a trial's last there) took, the best accuracies seen there."""
    last = rungs.drop_duplicates(["trial_id", "rung"], keep="last")  # paused first, promoted later: promoted
    best = last.groupby("rung").agg(
        attack_steps=("attack_steps", "max"),
        reached=("trial_id", "size"),
        clean=("clean_accuracy", "max"),
        robust=("robust_accuracy", "max"),
    )
    decisions = pd.crosstab(last["rung"], last["decision"])
    for decision in ("promoted", "continued", "paused", "stopped", "finished"):
        best[decision] = decisions.get(decision, 0)
    return best.reset_index()


def replicated(trials: pd.DataFrame) -> pd.DataFrame:
    """One row a configuration that was repeated, by ordinal: fresh seeds, mean and sample deviation of both accuracies over them.

    `clean_luck` and `robust_luck` say how much better the run was that made it a contender: the best of many is a lucky one.
    """
    finished = trials[trials["status"] == "finished"]
    fresh = finished[finished["origin"] == "replicate"].groupby("ordinal")
    table = fresh.agg(
        seeds=("trial_id", "size"), clean=(CLEAN, "mean"), clean_sd=(CLEAN, "std"), robust=(ROBUST, "mean"), robust_sd=(ROBUST, "std")
    )
    chosen = finished[finished["origin"] != "replicate"].drop_duplicates("ordinal").set_index("ordinal")
    chosen = chosen.reindex(table.index)
    return table.assign(clean_luck=chosen[CLEAN] - table["clean"], robust_luck=chosen[ROBUST] - table["robust"])


@dataclass(frozen=True)
class Noise:
    """What a training seed alone does to the contenders: pooled sample deviations, and how lucky the runs were that chose them, on average.

    `failed` repeats are left out of all means.
    """

    configurations: int
    runs: int
    failed: int
    clean_sd: float | None
    robust_sd: float | None
    clean_luck: float
    robust_luck: float


def noise(trials: pd.DataFrame) -> Noise | None:
    """Over all repeated configurations; deviations are None where each has one fresh seed. None where nothing was repeated."""
    table = replicated(trials)
    if table.empty:
        return None
    free = table["seeds"] - 1

    def pooled(deviation: str) -> float | None:
        return float(((free * table[deviation].fillna(0) ** 2).sum() / free.sum()) ** 0.5) if free.sum() else None

    luck = table[["clean_luck", "robust_luck"]].mean()
    return Noise(
        configurations=len(table),
        runs=int(table["seeds"].sum()),
        failed=int(((trials["origin"] == "replicate") & (trials["status"] == "failed")).sum()),
        clean_sd=pooled("clean_sd"),
        robust_sd=pooled("robust_sd"),
        clean_luck=float(luck["clean_luck"]),
        robust_luck=float(luck["robust_luck"]),
    )


@dataclass(frozen=True)
class Comparison:
    """Two students on the same test images under the same attack: accuracy of the first minus accuracy of the second."""

    first: str
    second: str
    attack: str
    images: int
    difference: Estimate


def compare(evaluations: pd.DataFrame, first: str, second: str) -> list[Comparison]:
    """Pair two trials' best checkpoints on every attack, seed for seed the lowest, where both saw the same images; else nothing."""
    best = evaluations[(evaluations["checkpoint"] == "best") & evaluations["per_image"].notna() & evaluations["subset_sha256"].notna()]
    same = ["attack", "norm", "eps", "steps", "seed", "subset_sha256"]
    sides = [best.loc[best["trial_id"] == trial, [*same, "per_image"]] for trial in (first, second)]
    # the keys of clean rows hold nulls, which pandas joins to nulls: that is meant
    pairs = sides[0].merge(sides[1], on=same).sort_values(["attack", "seed"], kind="stable").drop_duplicates("attack")
    return [
        Comparison(first, second, attack, len(a), paired_difference(a, b))
        for attack, a, b in zip(pairs["attack"], pairs["per_image_x"], pairs["per_image_y"], strict=True)
        if len(a) == len(b) > 0
    ]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values, None where something is missing."""
    plain = frame.astype(object)
    return [{str(key): value for key, value in row.items()} for row in plain.where(frame.notna(), None).to_dict("records")]


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
