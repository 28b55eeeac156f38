"""Comparison of validation attacks with AutoAttack at equal cost and any scale of the logits.

Real students (`attacked_students.py`: digits and Fashion-MNIST, many methods, widths, training eps,
temperatures), each attacked once by AutoAttack on validation images. Each candidate
(`attack_candidates.py`) is one PGD run with one start. Candidates differ in the objective
(`attack_objectives.py`), the step sizes, the momentum, and in the iterates that count: an image is
broken by the last x' alone, or by any x', which costs nothing.

Gap: accuracy under the candidate minus accuracy under AutoAttack, in points; mean over students
with the standard error of its paired difference from cross-entropy, and the largest. rho, tau:
Spearman and Kendall rank correlation of both accuracies over students.

    python analysis/benchmarks/validation_attack.py [--cache FOLDER] [--images 200] [--seeds 2]
        [--data digits fashion_mnist] [--fashion-mnist FOLDER]

Fashion-MNIST is read from a folder of Parquet files in the image layout of Hugging Face, and left
out where there is none. Its students are compared by a shorter list of candidates.

Cost on digits: some 25 s of one CPU core a student to train and to run AutoAttack, 15 s for the
candidates. The cache keeps all of it; `--ready` takes only the students that are in the cache.
"""

import argparse
import copy
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import turns
from attack_candidates import (
    BEST,
    CLASSICS,
    MIXTURES,
    OBJECTIVES,
    SOFT,
    Candidate,
    attack,
    first_look,
    step_sizes,
    trials_and_errors,
)
from attack_objectives import LogitFunction
from attacked_students import (
    DIGITS,
    Benchmark,
    EvaluatedStudent,
    evaluated_students,
    fashion_mnist,
)
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.attacks import input_gradient
from rkdsearch.methods import Student
from rkdsearch.models.closed_form import MatrixConvolution

LOWEST_CLEAN = 0.3  # clean accuracy: a student below it has learned nothing
# Beside the checkout, as tests have it.
_FOLDERS = {"fashion_mnist": Path(__file__).parents[2].parent / "shared" / "data" / "fashion_mnist"}


class Cache:
    """Accuracies under every candidate and network, in one file: nothing is measured twice."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, list[float]] = (
            json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        )

    def accuracies(
        self,
        candidate: Candidate,
        network: nn.Module,
        rewriting: str,
        student: EvaluatedStudent,
        seeds: int,
    ) -> NDArray[np.float64]:
        """(3,): accuracy by the last x', by every x', and seconds; means over seeds.

        `rewriting` names what `network` does to the student's logits.
        """
        key = f"{student.name} | {rewriting} | {candidate.name} | {len(student.x)} x {seeds}"
        if key not in self.known:
            results = [
                attack(candidate, network, student.x, student.y, eps=student.eps, seed=seed)
                for seed in range(seeds)
            ]
            self.known[key] = [
                statistics.mean(values)
                for values in zip(
                    *(
                        (float(a.last.double().mean()), float(a.every.double().mean()), a.seconds)
                        for a in results
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


def autoattack_of(student: EvaluatedStudent) -> float:
    """Accuracy under AutoAttack."""
    return float(student.robust.double().mean())


def compare(
    title: str,
    candidates: Iterable[Candidate],
    students: Sequence[EvaluatedStudent],
    known: Cache,
    seeds: int,
) -> None:
    """Print one table, sorted by steps and by the mean gap of the last x'."""
    reference = np.array([autoattack_of(student) for student in students])
    baseline = {steps: Candidate("cross-entropy", steps) for steps in (10, 20)}
    measured: dict[Candidate, NDArray[np.float64]] = {}
    for student_number, student in enumerate(students):
        for candidate in {*candidates, *baseline.values()}:
            row = measured.setdefault(candidate, np.zeros((len(students), 3)))
            row[student_number] = known.accuracies(
                candidate, student.network, "plain", student, seeds
            )
        known.save()
    print(f"\n{title}, n = {len(students)} students, {seeds} starts; gap to AutoAttack in points")
    print(
        f"{'':58} {'last iterate: mean':>18} {'max':>5} {'vs CE':>14} {'rho':>6} {'tau':>5}  "
        f"{'any iterate: mean':>17} {'max':>5} {'rho':>6}  {'ms':>6}"
    )
    for candidate, row in sorted(
        measured.items(), key=lambda item: (item[0].steps, (item[1][:, 0] - reference).mean())
    ):
        gaps = 100 * (row[:, :2] - reference[:, None])
        paired = 100 * (row[:, 0] - measured[baseline[candidate.steps]][:, 0])
        error = paired.std(ddof=1) / math.sqrt(len(students))
        print(
            f"{candidate.name:58} {gaps[:, 0].mean():18.2f} {gaps[:, 0].max():5.1f}"
            f" {paired.mean():+7.2f} ±{error:5.2f} {spearmanr(row[:, 0], reference)[0]:6.3f}"
            f" {kendalltau(row[:, 0], reference)[0]:5.3f}  {gaps[:, 1].mean():17.2f}"
            f" {gaps[:, 1].max():5.1f} {spearmanr(row[:, 1], reference)[0]:6.3f}"
            f"  {1000 * row[:, 2].mean():6.1f}",
            flush=True,
        )


class Rewritten(nn.Module):
    """The network with its logits rewritten: the same predictions on all images."""

    def __init__(self, network: nn.Module, rewrite: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.rewrite = network, rewrite

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.rewrite(self.network(x))


def times(factor: float) -> Callable[[Tensor], Tensor]:
    """Logits times a factor."""
    return lambda z: z * factor


REWRITINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "x 1e3": times(1e3),
    "x 1e6": times(1e6),
    "x 1e-4": times(1e-4),
    "/ 30": times(1 / 30),
    "x 8": times(8),
    "+ 1e3": lambda z: z + 1e3,
    "class at -1e4": lambda z: functional.pad(z, (0, 1), value=-1e4),
    "top + 1e3": lambda z: z + 1e3 * functional.one_hot(z.argmax(dim=1), z.shape[1]),
}


def rewritings(students: Sequence[EvaluatedStudent], known: Cache) -> None:
    """Print the mean gap to AutoAttack under every rewriting of the logits, and the largest gap."""
    print(
        f"\nlogits rewritten, n = {len(students)} students, one start, 10 steps: mean gap to"
        " AutoAttack in points, last iterate"
    )
    print(
        f"{'':46}" + "".join(f"{name:>14}" for name in ("plain", *REWRITINGS)) + f"{'largest':>9}"
    )
    candidates = [Candidate(name) for name in (*CLASSICS, SOFT, "soft margin 4", "soft others 6")]
    candidates += [Candidate(name, sizes="cosine") for name in ("margin", *BEST, *MIXTURES)]
    for candidate in candidates:
        cells, largest = [], 0.0
        for rewriting, rewrite in {"plain": None, **REWRITINGS}.items():
            gaps = [
                known.accuracies(
                    candidate,
                    s.network if rewrite is None else Rewritten(s.network, rewrite),
                    rewriting,
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


def signs(student: EvaluatedStudent) -> None:
    """Print two shares, for every objective and factor on the logits, in fp32.

    Pixels whose gradient has the sign of the plain network's in float64; images without gradient.
    """
    x, y = student.x, student.y
    double = copy.deepcopy(student.network).double()
    for module in double.modules():
        if isinstance(
            module, MatrixConvolution
        ):  # `double` converts buffers, and its matrices are none
            module.matrices.clear()
            module.units.clear()
    print(
        f"\n{student.name}: pixels with the sign of float64's gradient (images without gradient),"
        " fp32"
    )
    factors = (1.0, 1e3, 1e6, 1e12, 1e30, 1e-6, 1e-12, 1e-30)
    print(f"{'':32}" + "".join(f"{f'x {factor:g}':>16}" for factor in factors))
    for name, function in OBJECTIVES.items():
        cells = []
        exact = _gradient(double, function, x.double(), y)
        for factor in factors:
            found = _gradient(Rewritten(student.network, times(factor)), function, x, y)
            same = (found.sign() == exact.sign()).double().mean()
            none = (found == 0).flatten(1).all(dim=1).double().mean()
            cells.append(f"{float(same):9.4f} ({float(none):4.2f})")
        print(f"{name:32}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def _gradient(network: nn.Module, function: LogitFunction, x: Tensor, y: Tensor) -> Tensor:
    return input_gradient(function.loss(y).of(Student(network)), x)


class FirstClasses(nn.Module):
    """The first K logits of a network."""

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        logits: Tensor = self.network(x)
        return logits[:, : self.classes]


def few_classes(students: Sequence[EvaluatedStudent]) -> None:
    """Print the gap to four long runs, of networks cut to their first 2, 3 and 5 classes.

    AutoAttack's targeted attacks need ten classes.
    """
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
            f"\nK = {classes}, n = {len(students)} students, 10 steps, last iterate: gap to four"
            " long runs, points"
        )
        for name, gaps in table.items():
            print(f"{name:32} mean {statistics.mean(gaps):6.2f}  max {max(gaps):6.2f}", flush=True)


def short_list() -> list[Candidate]:
    """Candidates of ADR 14's table: the classics, and the best with falling steps; 10 and 20."""
    return [
        *(Candidate(name) for name in CLASSICS),
        *(Candidate(name, sizes="cosine") for name in ("cross-entropy", "margin", *BEST[3:])),
        *(Candidate(name, sizes="cosine") for name in MIXTURES),
        Candidate("cross-entropy", 20),
        Candidate("soft others 6 > margin", 20, sizes="cosine"),
    ]


def _spread_out(students: Sequence[EvaluatedStudent], count: int) -> list[EvaluatedStudent]:
    """`count` students, evenly spaced from the least to the most robust."""
    ranked = sorted(students, key=autoattack_of)
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    return [ranked[place] for place in places]


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
    parser.add_argument("--data", nargs="+", default=["digits"], choices=["digits", *_FOLDERS])
    parser.add_argument("--fashion-mnist", type=Path, default=_FOLDERS["fashion_mnist"])
    parser.add_argument(
        "--tables",
        nargs="+",
        default=["objectives", "sizes", "trials", "rewritings", "signs", "classes"],
        choices=["objectives", "sizes", "trials", "rewritings", "signs", "classes"],
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    print(turns.head())
    known = Cache(arguments.cache / "attacks.json")

    def learned(benchmark: Benchmark) -> list[EvaluatedStudent]:
        found = list(
            evaluated_students(benchmark, arguments.images, arguments.cache, ready=arguments.ready)
        )
        # A student that learned nothing is constant, and all attacks are alike on it.
        students = [s for s in found if float(s.clean.double().mean()) > LOWEST_CLEAN]
        print(
            f"{benchmark.name}: {len(found) - len(students)} of {len(found)} students learned"
            " nothing and are left out"
        )
        return students

    if "fashion_mnist" in arguments.data:
        folder = arguments.fashion_mnist.resolve()
        if any(folder.glob("train*.parquet")):
            students = learned(fashion_mnist(folder))
            compare("Fashion-MNIST", short_list(), students, known, arguments.seeds)
        else:
            print(f"Fashion-MNIST is left out: {folder} has no train*.parquet")
    if "digits" not in arguments.data:
        return 0
    students = learned(DIGITS)
    looks = {"objectives": first_look, "sizes": step_sizes, "trials": trials_and_errors}
    for name, candidates in looks.items():
        if name in arguments.tables:
            few = students[: 8 if name == "trials" else None]
            compare(name, candidates(), few, known, arguments.seeds)
    if "rewritings" in arguments.tables:
        rewritings(_spread_out(students, 6), known)
    if "signs" in arguments.tables:
        signs(students[0])
    if "classes" in arguments.tables:
        few_classes(_spread_out(students, 6))
    return 0


if __name__ == "__main__":
    sys.exit(main())
