"""The claim of the demo: five searches on digits against the published settings, on test images.

    python analysis/demo_full.py [--study studies/claim] [--searches 5] [--trials 60] [--check]

Five searches of `search_spaces/digits_claim.yaml`, each with a search seed of its own, and the
baselines once; contenders race over training seeds, up to sixteen of each; then AutoAttack on all
test images, opened once, after everything was chosen on validation images. All of it resumes: the
same command goes on. `--check` stops before the test images and prints the validation fronts.

The searched front is each search's own front. The published front is that of the baselines, by the
same rule: non-dominated means of clean and robust validation accuracy. Their hypervolumes above
(0, 0), in test accuracies of the last eight seeds, on which no contender dropped out, are compared.
A front of many settings would win by the luck of its best one, so half of the seeds say which
settings are the non-dominated ones, the other half what they are worth, and the other way round.
The interval is of 2,000 bootstrap draws over the seeds of each half, which all settings share
(blocks), and over test images.
"""

import argparse
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rkdsearch.evaluation.jobs import evaluation_jobs
from rkdsearch.evaluation.other_images import image_sets
from rkdsearch.evaluation.runner import JobFailure, evaluate, here
from rkdsearch.evaluation.targets import study_targets
from rkdsearch.results import pareto
from rkdsearch.results.cells import CLEAN, METHOD, ROBUST, flags_of, records
from rkdsearch.results.states import EvaluationAttack, Origin, Status
from rkdsearch.results.study import read_study
from rkdsearch.space.space import SearchSpace

SPACE = Path(__file__).parents[1] / "search_spaces" / "digits_claim.yaml"
PUBLISHED = "published"  # the study of the baselines alone
DISTILLATION = ("rslad", "iad", "crdnd", "ardir")  # what the claim is about
ATTACKS: tuple[EvaluationAttack, ...] = ("clean", "autoattack")
DRAWS = 2_000
FRESH = 8  # the last training seeds, which come after the race


@dataclass(frozen=True)
class Setting:
    """One configuration that is compared: where it is, its means on validation, and its seeds."""

    study: str
    ordinal: int
    name: str
    method: str
    validation: tuple[float, float]
    trial_ids: tuple[str, ...]  # of its last replicates, in the order of their seeds


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", type=Path, default=Path("studies/claim"))
    parser.add_argument("--searches", type=int, default=5)
    parser.add_argument("--trials", type=int, default=60, help="of each search, baselines included")
    parser.add_argument("--check", action="store_true", help="stop before the test images")
    given = parser.parse_args()
    names = [f"search-{number}" for number in range(given.searches)]
    tune(given.study, PUBLISHED, len(SearchSpace.load(SPACE).baselines), seed=0, baselines=True)
    for number, name in enumerate(names):
        tune(given.study, name, given.trials, seed=number, baselines=False)
    published = front_of(given.study / PUBLISHED, Origin.BASELINE)
    searched = {name: front_of(given.study / name, Origin.SEARCH) for name in names}
    print(fronts(published, searched))
    if given.check:
        return
    chosen = [*published, *(setting for front in searched.values() for setting in front)]
    test(given.study, chosen)
    said = verdict(given.study, published, searched)
    print(said)
    (given.study / "claim.md").write_text(said + "\n", encoding="utf-8")


# -------------------------------------------------------------------------------- validation images


def tune(folder: Path, name: str, trials: int, *, seed: int, baselines: bool) -> None:
    """Run one search, or go on with it; its space is written into the claim's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    space = folder / f"{name}.yaml"
    text = f"extends: {SPACE.resolve()}\nseed: {seed}\n"
    if baselines:
        text += "replicates: {baselines: true, race: 0, contenders: 2}\n"
    else:  # one teacher for all
        (teacher,) = (folder / PUBLISHED).resolve().glob("teachers/*/best.safetensors")
        text += f"fixed: {{teachers.robust.path: {teacher}}}\n"
    space.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "rkdsearch", "tune", str(space), "--resume"]
    command += ["--trials", str(trials), "--study", str(folder / name), "--no-journal"]
    subprocess.run(command, check=True)  # noqa: S603 - our own command


def front_of(folder: Path, origin: Origin) -> list[Setting]:
    """The non-dominated settings of this origin, by the means of all of their replicates.

    Those that dropped out of the race have fewer, and do not count; nor do those with a run that
    failed or is flagged, which are named.
    """
    found = records(read_study(folder).trials)
    for row in found:
        flags = ", ".join(flags_of(row["flags"]))
        failed = row["status"] == Status.FAILED
        if row["origin"] == Origin.REPLICATE and (failed or flags):
            name = row["label"] or f"{row[METHOD]} of t{row['ordinal']:05d}"
            why = f"is flagged ({flags})" if flags else "failed"
            print(f"{folder.name}: {name} is left out: its seed {row['run.seed']} {why}")
    rows = [r for r in found if r["status"] == Status.FINISHED and not flags_of(r["flags"])]
    again: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda r: int(r["run.seed"])):
        if row["origin"] == Origin.REPLICATE:
            again.setdefault(row["ordinal"], []).append(row)
    most = max(map(len, again.values()))
    settings = [
        Setting(
            folder.name,
            own["ordinal"],
            str(own["label"] or own[METHOD]),
            str(own[METHOD]),
            (
                statistics.fmean(r[CLEAN] for r in again[own["ordinal"]]),
                statistics.fmean(r[ROBUST] for r in again[own["ordinal"]]),
            ),
            tuple(r["trial_id"] for r in again[own["ordinal"]][-FRESH:]),
        )
        for own in rows
        if own["origin"] == origin and len(again.get(own["ordinal"], ())) == most
    ]
    kept = pareto.non_dominated([setting.validation for setting in settings])
    return [setting for setting, stays in zip(settings, kept, strict=True) if stays]


def fronts(published: Sequence[Setting], searched: dict[str, list[Setting]]) -> str:
    """The fronts on validation images, a line for each setting."""
    lines = [f"{'study':12} {'setting':34} validation clean / robust, mean over all seeds"]
    lines += [
        f"{one.study:12} {one.name:34} {one.validation[0]:.3f} / {one.validation[1]:.3f}"
        for one in (*published, *(s for front in searched.values() for s in front))
    ]
    return "\n".join(lines)


# -------------------------------------------------------------------------------- test images


def test(folder: Path, chosen: Sequence[Setting]) -> None:
    """Evaluate every replicate of what was chosen, two studies at a time; what exists is kept."""
    wanted: dict[str, list[str]] = {}
    for setting in chosen:
        wanted.setdefault(setting.study, []).extend(setting.trial_ids)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tasks = [(folder / study, sorted(ids)) for study, ids in wanted.items()]
        for failures in pool.map(_tested, *zip(*tasks, strict=True)):
            if failures:
                raise SystemExit("\n".join(failures))


def _tested(study: Path, trial_ids: Sequence[str]) -> list[str]:
    torch.set_num_threads(1)
    found = study_targets(study)
    networks = [t for t in found.networks if t.role is None and t.trial_id in trial_ids]
    jobs = evaluation_jobs(replace(found, networks=networks), ATTACKS)
    (images,) = image_sets(None, {}, (), networks, None)
    outcomes = evaluate(study, jobs, images, here, notice=print)
    return [str(one.sentence) for one in outcomes if isinstance(one, JobFailure)]


def verdict(folder: Path, published: Sequence[Setting], searched: dict[str, list[Setting]]) -> str:
    """Each searched front against the published one, as a Markdown table and two sentences."""
    base = [_right(folder, setting) for setting in published]
    lines = [
        (
            "| search | front: method, test clean / AutoAttack | hypervolume | published |"
            " difference [95 %] |"
        ),
        "|---|---|---|---|---|",
    ]
    above, distilled = 0, 0
    for name, front in searched.items():
        own = [_right(folder, setting) for setting in front]
        difference, low, high = _difference(own, base)
        above += low > 0
        union = [*published, *front]
        kept = pareto.non_dominated([setting.validation for setting in union])
        distilled += any(
            stays and one.method in DISTILLATION for one, stays in zip(union, kept, strict=True)
        )
        lines.append(
            f"| {name} | {_members(front, own)} | {_volume(own):.4f} | {_volume(base):.4f} |"
            f" {difference:+.4f} [{low:+.4f}, {high:+.4f}] |"
        )
    seeds, images = base[0].shape[:2]
    lines += [
        "",
        f"Published front: {_members(published, base)}",
        "",
        (
            f"The searched front is above the published one in {above} of {len(searched)} searches;"
            f" one of {', '.join(DISTILLATION)} is on the validation front of both together in"
            f" {distilled}."
        ),
        "",
        (
            f"{seeds} training seeds, {images} test images, AutoAttack;"
            f" {platform.processor() or platform.machine()}, torch {torch.__version__}."
        ),
    ]
    return "\n".join(lines)


def _members(front: Sequence[Setting], right: Sequence[NDArray[np.float64]]) -> str:
    """The settings of a front with their test accuracies."""
    found = []
    for setting, correct in zip(front, right, strict=True):
        clean, robust = correct.mean(axis=(0, 1))
        found.append(f"{setting.name} {clean:.3f} / {robust:.3f}")
    return "; ".join(found)


def _right(folder: Path, setting: Setting) -> NDArray[np.float64]:
    """Right or wrong, (seeds, images, 2): clean, and under AutoAttack."""
    rows = [
        row
        for row in records(read_study(folder / setting.study).tests)
        if row["attack"] in ATTACKS
        and row["checkpoint"] == "best"
        and row["trial_id"] in setting.trial_ids
    ]
    if len({row["subset_sha256"] for row in rows}) != 1:
        raise SystemExit(f"{setting.study}: its students were tested on different images")
    found = {(row["trial_id"], row["attack"]): row["per_image"] for row in rows}
    return np.array(
        [
            np.array([[digit == "1" for digit in found[trial, attack]] for attack in ATTACKS]).T
            for trial in setting.trial_ids
        ],
        dtype=float,
    )


def _volume(settings: Sequence[NDArray[np.float64]]) -> float:
    """Hypervolume of settings (seeds, images, 2), chosen on one half of the seeds, by the other."""
    half = len(settings[0]) // 2
    found = 0.0
    for choosing, judging in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        kept = pareto.non_dominated([right[choosing].mean(axis=(0, 1)) for right in settings])
        found += pareto.hypervolume(
            [
                right[judging].mean(axis=(0, 1))
                for right, on in zip(settings, kept, strict=True)
                if on
            ]
        )
    return found / 2


def _difference(
    own: Sequence[NDArray[np.float64]], base: Sequence[NDArray[np.float64]]
) -> tuple[float, float, float]:
    """Difference of the hypervolumes, and its 95 % bootstrap interval over seeds and images."""
    rng = np.random.default_rng(0)
    seeds, images = base[0].shape[:2]
    half = seeds // 2
    drawn = []
    for _ in range(DRAWS):
        rows = np.r_[rng.integers(half, size=half), rng.integers(half, seeds, size=seeds - half)]
        columns = rng.integers(images, size=images)
        drawn.append(
            _volume([right[rows][:, columns] for right in own])
            - _volume([right[rows][:, columns] for right in base])
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return _volume(own) - _volume(base), float(low), float(high)


if __name__ == "__main__":
    main()
