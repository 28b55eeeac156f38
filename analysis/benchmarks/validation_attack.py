"""Which validation attack comes closest to AutoAttack at equal cost, whatever the scale of the logits? One PGD run each, image by image.

Real students (`attacked_students.py`: digits, many methods, widths, training eps, temperatures), each
judged once by AutoAttack on validation images. Every candidate is one PGD
run with one start: as many forward and backward passes as it has steps, and a last forward pass.
What differs is the objective (`attack_objectives.py`), the step sizes, the momentum, and whether an
image counts as broken by its last iterate alone or by any of them, which costs nothing.

Gap: accuracy under the candidate minus accuracy under AutoAttack, in points; mean over students
with the standard error of its paired difference from cross-entropy, and the largest. rho, tau:
Spearman and Kendall rank correlation of both accuracies over students.

    python analysis/benchmarks/validation_attack.py [--cache FOLDER] [--images 200] [--seeds 2]

Cost: some 25 s of one CPU core a student to train and judge by AutoAttack, 15 s to attack; what is
in the cache is not done again. `--ready` attacks the students that are there.
"""

import argparse
import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import turns
from attack_objectives import LogitObjective, margin, objectives
from attacked_students import Judged, judged
from scipy.stats import kendalltau, spearmanr
from torch import Tensor, nn
from torch.nn import functional

from rkdsearch.attacks import Linf, Noise, OfLogits
from rkdsearch.attacks.pgd import gradient_of
from rkdsearch.methods import Student
from rkdsearch.models.chain import Unrolled

Sizes = Literal[
    "quarter", "2.5/steps", "linear", "linear 2", "cosine", "cosine 2", "halving", "halving 2"
]
OBJECTIVES = objectives()
SOFT = "soft range 20"
LEARNED = 0.3  # clean accuracy
CLASSICS = ("cross-entropy", "margin", "dlr")
BEST = (
    SOFT,
    "soft margin 4",
    "soft others 6",
    f"{SOFT} > margin",
    "soft margin 4 > margin",
    "soft others 6 > margin",
)
MIXTURES = ("cross-entropy > margin",)
WEAK = (
    "own logit",
    "soft range 5",
    "soft deviation 2",
    "soft first_third 2",
    "soft range 10, attached",
    "soft deviation 4, attached",
    "soft first_third 4, attached",
    "soft first_third 4",
    "soft deviation 4",
    "soft deviation 16",
    "soft margin 1",
    "soft others 3",
)


@dataclass(frozen=True)
class Candidate:
    """One attack. `objective` names one for all steps, or several for equal shares of them in turn, joined by ' > '; ' / ' alternates them."""

    objective: str
    steps: int = 10
    sizes: Sizes = "quarter"
    momentum: float = 0.0
    start: Literal["uniform", "none"] = "uniform"

    def at(self, step: int) -> LogitObjective:
        """The objective of this step."""
        if " / " in self.objective:
            names = self.objective.split(" / ")
            return OBJECTIVES[names[step % len(names)]]
        names = self.objective.split(" > ")
        return OBJECTIVES[names[step * len(names) // self.steps]]

    def size(self, step: int) -> float:
        """Step size as a fraction of eps."""
        left = 1 - step / self.steps
        match self.sizes:
            case "quarter":
                return 0.25
            case "2.5/steps":
                return 2.5 / self.steps
            case "linear":
                return left
            case "linear 2":
                return 2 * left
            case "cosine":
                return (1 + math.cos(math.pi * step / self.steps)) / 2
            case "cosine 2":
                return 1 + math.cos(math.pi * step / self.steps)
            case "halving":  # 1, 1/2, ..., 1/16 of eps
                return float(0.5 ** (5 * step // self.steps))
            case "halving 2":
                return 2 * float(0.5 ** (6 * step // self.steps))

    @property
    def name(self) -> str:
        """What the tables and the cache call it."""
        return ", ".join(
            [
                self.objective,
                f"{self.steps} steps",
                self.sizes,
                *([f"momentum {self.momentum:g}"] if self.momentum else []),
                *(["from x"] if self.start == "none" else []),
            ]
        )


@dataclass(frozen=True)
class Answer:
    """Right after the last iterate, and after every iterate, (N,) booleans; seconds."""

    last: Tensor
    every: Tensor
    seconds: float


def attack(
    candidate: Candidate, network: nn.Module, x: Tensor, y: Tensor, *, eps: float, seed: int
) -> Answer:
    """One run. Images that are wrong on x count as broken."""
    began = time.perf_counter()
    steps = iter(range(candidate.steps))
    with torch.no_grad():
        clean = network(x).argmax(dim=1) == y
    every = clean.clone()

    def slope(logits: Tensor) -> Tensor:
        every.logical_and_(logits.argmax(dim=1) == y)
        return candidate.at(next(steps)).slope(logits, y)

    ball = Linf(eps)
    problem = OfLogits(Student(network), lambda z: margin(z, y), slope)
    gradient, project = gradient_of(problem, x), ball.around(x)
    x_adv = x.clone()
    if candidate.start == "uniform":
        noise = Noise(torch.Generator().manual_seed(seed))
        x_adv = project(x_adv + ball.fill(noise.uniform(x)))
    before = x_adv.clone()
    for step in range(candidate.steps):
        direction = ball.direction(gradient(x_adv))
        moved = project(x_adv + candidate.size(step) * eps * direction)
        if candidate.momentum and step:
            # APGD's: a share of the step before, then the ball again
            moved = project(
                x_adv
                + (1 - candidate.momentum) * (moved - x_adv)
                + candidate.momentum * (x_adv - before)
            )
        before, x_adv = x_adv, moved
    with torch.no_grad():
        right = network(x_adv).argmax(dim=1) == y
    return Answer(last=clean & right, every=every & right, seconds=time.perf_counter() - began)


# ---------------------------------------------------------------------------------------- candidates


def first_look() -> list[Candidate]:
    """Every objective with the steps of today's validation attack, and the better ones with twice as many."""
    return [Candidate(name) for name in (*OBJECTIVES, *BEST[3:]) if name not in WEAK] + [
        Candidate(name, 20) for name in (*CLASSICS, *BEST)
    ]


def step_sizes() -> list[Candidate]:
    """Other step sizes and starts, and objectives that share the steps."""
    base = Candidate(SOFT)
    found = [replace(base, sizes=sizes) for sizes in ("linear", "halving 2")]
    found += [replace(base, sizes="cosine", start="none")]
    found += [Candidate(name, sizes="cosine") for name in (*CLASSICS, *BEST, *MIXTURES)]
    found += [Candidate(name, 20, "cosine") for name in BEST]
    return found + [Candidate(name) for name in MIXTURES]


def trials_and_errors() -> list[Candidate]:
    """What the first students already ruled out, or did not tell apart from what is measured on all."""
    base = Candidate(SOFT)
    found = [Candidate(name) for name in WEAK]
    found += [replace(base, sizes=sizes) for sizes in ("linear 2", "cosine 2", "halving")]
    found += [replace(base, momentum=0.25), replace(base, steps=20, sizes="2.5/steps")]
    found += [replace(base, start="none"), replace(base, sizes="cosine 2", momentum=0.25)]
    mixed = ("own logit > margin", "cross-entropy / margin", "soft range 20 / margin")
    mixed += ("margin > soft range 20", "soft range 5 > soft range 40")
    return found + [Candidate(name) for name in mixed]


# ------------------------------------------------------------------------------------------ measuring


class Cache:
    """Accuracies under every candidate and network, kept in one file: a second start does only what is missing."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, list[float]] = (
            json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        )

    def of(
        self, candidate: Candidate, network: nn.Module, what: str, student: Judged, seeds: int
    ) -> np.ndarray:
        """(3,): accuracy by the last iterate, by every one, and seconds; means over seeds. `what` names the network."""
        key = f"{student.name} | {what} | {candidate.name} | {len(student.x)} x {seeds}"
        if key not in self.known:
            answers = [
                attack(candidate, network, student.x, student.y, eps=student.eps, seed=seed)
                for seed in range(seeds)
            ]
            self.known[key] = [
                statistics.mean(values)
                for values in zip(
                    *(
                        (float(a.last.double().mean()), float(a.every.double().mean()), a.seconds)
                        for a in answers
                    ),
                    strict=True,
                )
            ]
        return np.array(self.known[key])

    def save(self) -> None:
        """Replace the file as a whole."""
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.known), encoding="utf-8")
        new.replace(self.file)


def autoattack_of(student: Judged) -> float:
    """Accuracy under AutoAttack."""
    return float(student.robust.double().mean())


def compare(
    title: str,
    candidates: Iterable[Candidate],
    students: Sequence[Judged],
    known: Cache,
    seeds: int,
) -> None:
    """One table, sorted by steps and mean gap of the last iterate."""
    reference = np.array([autoattack_of(student) for student in students])
    today = {steps: Candidate("cross-entropy", steps) for steps in (10, 20)}
    measured: dict[Candidate, np.ndarray] = {}
    for student_number, student in enumerate(students):
        for candidate in {*candidates, *today.values()}:
            row = measured.setdefault(candidate, np.zeros((len(students), 3)))
            row[student_number] = known.of(candidate, student.network, "plain", student, seeds)
        known.save()
    print(f"\n{title}, n = {len(students)} students, {seeds} starts; gap to AutoAttack in points")
    print(
        f"{'':58} {'last iterate: mean':>18} {'max':>5} {'vs CE':>14} {'rho':>6} {'tau':>5}  "
        f"{'any iterate: mean':>17} {'max':>5} {'rho':>6}  {'ms':>6}"
    )
    for candidate, row in sorted(
        measured.items(), key=lambda item: (item[0].steps, (item[1][:, 1] - reference).mean())
    ):
        gaps = 100 * (row[:, :2] - reference[:, None])
        paired = 100 * (row[:, 0] - measured[today[candidate.steps]][:, 0])
        error = paired.std(ddof=1) / math.sqrt(len(students))
        print(
            f"{candidate.name:58} {gaps[:, 0].mean():18.2f} {gaps[:, 0].max():5.1f}"
            f" {paired.mean():+7.2f} ±{error:5.2f} {spearmanr(row[:, 0], reference)[0]:6.3f}"
            f" {kendalltau(row[:, 0], reference)[0]:5.3f}  {gaps[:, 1].mean():17.2f}"
            f" {gaps[:, 1].max():5.1f} {spearmanr(row[:, 1], reference)[0]:6.3f}"
            f"  {1000 * row[:, 2].mean():6.1f}",
            flush=True,
        )


# ---------------------------------------------------------------------------------------------- masks


class Masked(nn.Module):
    """The network with its logits rewritten: the same predictions on all images."""

    def __init__(self, network: nn.Module, rewrite: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.rewrite = network, rewrite

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.rewrite(self.network(x))


def times(factor: float) -> Callable[[Tensor], Tensor]:
    """Logits times a factor."""
    return lambda z: z * factor


MASKS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "x 1e3": times(1e3),
    "x 1e6": times(1e6),
    "x 1e-4": times(1e-4),
    "/ 30": times(1 / 30),
    "x 8": times(8),
    "+ 1e3": lambda z: z + 1e3,
    "class at -1e4": lambda z: functional.pad(z, (0, 1), value=-1e4),
    "top + 1e3": lambda z: z + 1e3 * functional.one_hot(z.argmax(dim=1), z.shape[1]),
}


def masks(students: Sequence[Judged], known: Cache) -> None:
    """What rewritten logits do: mean gap to AutoAttack over students, 10 steps, the last iterate; and the largest under any mask."""
    print(
        f"\nlogits rewritten, n = {len(students)} students, one start, 10 steps: mean gap to"
        " AutoAttack in points, last iterate"
    )
    print(f"{'':46}" + "".join(f"{mask:>14}" for mask in ("plain", *MASKS)) + f"{'largest':>9}")
    candidates = [Candidate(name) for name in (*CLASSICS, SOFT, "soft margin 4", "soft others 6")]
    candidates += [Candidate(name, sizes="cosine") for name in ("margin", *BEST, *MIXTURES)]
    for candidate in candidates:
        cells, largest = [], 0.0
        for mask, rewrite in {"plain": None, **MASKS}.items():
            gaps = [
                known.of(
                    candidate,
                    s.network if rewrite is None else Masked(s.network, rewrite),
                    mask,
                    s,
                    1,
                )[0]
                - autoattack_of(s)
                for s in students
            ]
            cells.append(100 * statistics.mean(gaps))
            largest = max(largest, *(100 * gap for gap in gaps))
        known.save()
        row = "".join(f"{c:14.1f}" for c in cells)
        print(f"{candidate.name:46}{row}{largest:9.1f}", flush=True)


def signs(student: Judged) -> None:
    """Share of pixels whose gradient has the same sign as that of the plain network in float64, and share of images whose gradient is 0; fp32."""
    x, y = student.x, student.y
    double = copy.deepcopy(student.network).double()
    for module in double.modules():
        if isinstance(module, Unrolled):  # its matrices are no buffers
            module.matrices.clear()
            module.units.clear()
    print(
        f"\n{student.name}: pixels with the sign of float64's gradient (images without gradient), fp32"
    )
    factors = (1.0, 1e3, 1e6, 1e12, 1e30, 1e-6, 1e-12, 1e-30)
    print(f"{'':32}" + "".join(f"{f'x {factor:g}':>16}" for factor in factors))
    for name, objective in OBJECTIVES.items():
        cells = []
        exact = _gradient(double, objective, x.double(), y)
        for factor in factors:
            found = _gradient(Masked(student.network, times(factor)), objective, x, y)
            same = (found.sign() == exact.sign()).double().mean()
            none = (found == 0).flatten(1).all(dim=1).double().mean()
            cells.append(f"{float(same):9.4f} ({float(none):4.2f})")
        print(f"{name:32}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def _gradient(network: nn.Module, objective: LogitObjective, x: Tensor, y: Tensor) -> Tensor:
    problem = OfLogits(
        Student(network), lambda z: objective.value(z, y), lambda z: objective.slope(z, y)
    )
    return gradient_of(problem, x)(x)


class FirstClasses(nn.Module):
    """The first K logits of a network."""

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        answer: Tensor = self.network(x)[:, : self.classes]
        return answer


def few_classes(students: Sequence[Judged]) -> None:
    """Networks cut to their first 2, 3 and 5 classes: gap to four long runs, since AutoAttack needs ten classes here."""
    for classes in (2, 3, 5):
        table: dict[str, list[float]] = {}
        for s in students:
            rows = s.y < classes
            network, x, y = FirstClasses(s.network, classes), s.x[rows], s.y[rows]
            strongest = torch.ones(len(x), dtype=torch.bool)
            for name in ("margin", SOFT):
                for seed in range(2):
                    found = attack(
                        Candidate(name, 50, "cosine"), network, x, y, eps=s.eps, seed=100 + seed
                    )
                    strongest &= found.every
            for name in (*CLASSICS, *BEST, "soft range 10, attached"):
                found = attack(Candidate(name), network, x, y, eps=s.eps, seed=0)
                strongest_gap = float(found.last.double().mean() - strongest.double().mean())
                table.setdefault(name, []).append(100 * strongest_gap)
        print(
            f"\nK = {classes}, n = {len(students)} students, 10 steps, last iterate: gap to four long runs, points"
        )
        for name, gaps in table.items():
            print(f"{name:32} mean {statistics.mean(gaps):6.2f}  max {max(gaps):6.2f}", flush=True)


def _spread_out(students: Sequence[Judged], count: int) -> list[Judged]:
    """So many students from the least to the most robust, evenly."""
    ranked = sorted(students, key=autoattack_of)
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    return [ranked[place] for place in places]


# ----------------------------------------------------------------------------------------------- main


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=Path("runs/validation_attack"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--ready", action="store_true", help="only students that are in the cache already"
    )
    parser.add_argument(
        "--tables",
        nargs="+",
        default=["objectives", "sizes", "trials", "masks", "signs", "classes"],
        choices=["objectives", "sizes", "trials", "masks", "signs", "classes"],
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    print(turns.head())
    found = list(judged(arguments.images, arguments.cache, ready=arguments.ready))
    # one that learned nothing has a constant answer, and no attack differs from another on it
    students = [s for s in found if float(s.clean.double().mean()) > LEARNED]
    print(f"{len(found) - len(students)} of {len(found)} students learned nothing and are left out")
    known = Cache(arguments.cache / "attacks.json")
    looks = {"objectives": first_look, "sizes": step_sizes, "trials": trials_and_errors}
    for name, candidates in looks.items():
        if name in arguments.tables:
            few = students[: 8 if name == "trials" else None]
            compare(name, candidates(), few, known, arguments.seeds)
    if "masks" in arguments.tables:
        masks(_spread_out(students, 6), known)
    if "signs" in arguments.tables:
        signs(students[0])
    if "classes" in arguments.tables:
        few_classes(_spread_out(students, 6))
    return 0


if __name__ == "__main__":
    sys.exit(main())
