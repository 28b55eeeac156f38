"""Clean and robust accuracy of one network, image by image, under a fixed protocol.

Validation uses it; the test evaluation has attacks of its own (`evaluation/attacks.py`). Every
image keeps its own result, so that two networks can be compared on the same images. The results do
not depend on the number of processes.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from rkdsearch.attacks import Attack, MarginAttack, Noise
from rkdsearch.attacks.objectives import finite_gradient_of
from rkdsearch.errors import OutOfMemoryError, is_out_of_memory
from rkdsearch.methods import Student, inner
from rkdsearch.pace import Pace

BATCH = 250  # images; fixed, because the position of a batch seeds its random start


@dataclass(frozen=True)
class ByClass:
    """Clean and robust accuracy of each class, fractions of 1, in the order of the labels.

    None for a class without images.
    """

    clean: tuple[float | None, ...]
    robust: tuple[float | None, ...]

    @property
    def balanced_clean(self) -> float:
        """Mean of the classes' clean accuracies: every class counts as much."""
        return _mean(self.clean)

    @property
    def balanced_robust(self) -> float:
        """The same of their robust accuracies."""
        return _mean(self.robust)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


@dataclass(frozen=True)
class ImageResults:
    """Results of N images, each tensor (N,).

    Labels `y`; `clean`, True where the prediction on x is correct; `robust`, True where those on x
    and on every x' are.
    """

    y: Tensor
    clean: Tensor
    robust: Tensor

    @property
    def clean_accuracy(self) -> float:
        """Fraction of 1."""
        return float(self.clean.double().mean())

    @property
    def robust_accuracy(self) -> float:
        """Fraction of 1."""
        return float(self.robust.double().mean())

    @property
    def worst_class_accuracy(self) -> float:
        """Smallest robust accuracy of any class that has images, a fraction of 1."""
        return min(value for value in self.by_class.robust if value is not None)

    @property
    def by_class(self) -> ByClass:
        """Accuracies of the classes up to the highest label."""
        classes = int(self.y.max()) + 1
        images = torch.bincount(self.y, minlength=classes).tolist()

        def shares(right: Tensor) -> tuple[float | None, ...]:
            counts = torch.bincount(self.y[right], minlength=classes).tolist()
            return tuple(k / n if n else None for k, n in zip(counts, images, strict=True))

        return ByClass(shares(self.clean), shares(self.robust))


@dataclass(frozen=True)
class TeacherReliability:
    """The teacher's predictions on the student's x': IAD's three cases, as shares of the images."""

    right_on_adversarial: float
    right_on_clean_only: float
    wrong_on_both: float


class SliceableImages(Protocol):
    """Images (N, C, H, W) that become floats slice by slice; a tensor is one."""

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, part: slice, /) -> Tensor:
        """Pixels of [0, 1]."""
        ...


def allow_tf32(*, allowed: bool) -> None:
    """Let a GPU round factors to TF32's 10 bits, or not.

    torch allows it for convolutions by default, and fp32 results then differ between GPU models.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


@contextmanager
def ieee_fp32() -> Iterator[None]:
    """Forbid TF32 inside the block; restore the setting afterwards."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    allow_tf32(allowed=False)
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def kept_settings() -> Iterator[None]:
    """Restore torch's settings after the block, as a notebook has them.

    They are the global random state, the number of threads, and TF32.
    """
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.set_rng_state(random)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def attacked_images(
    network: nn.Module,
    attack: Attack | MarginAttack,
    x: Tensor,
    y: Tensor,
    *,
    seed: int,
    part: slice = slice(None),
    start: Tensor | None = None,
) -> Tensor:
    """x' against the labels y, of `network` in eval mode and frozen.

    An `Attack` maximises the cross-entropy. Without `start` (N, C, H, W) it is drawn with `seed`.
    `part` restricts the attack to some of the images; their start is the same as among all.
    Components of gradients that are not numbers are left out, so that every x' is an image.
    """
    if start is None:
        start = attack.start(x, Noise(torch.Generator(device=x.device).manual_seed(seed)))
    student = Student(network)
    if isinstance(attack, MarginAttack):
        return attack.climb(student, y[part], x[part], start[part])
    objective = inner.classification(y[part]).of(student)
    return attack.climb(objective, x[part], start[part], gradient_of=finite_gradient_of)


@torch.no_grad()
def correct(network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """(N,) True where the largest logit of an image is its label's; never where one is NaN."""
    logits = network(x)
    return (logits.argmax(dim=1) == y) & ~logits.isnan().any(dim=1)


@ieee_fp32()
def evaluate_accuracy(
    network: nn.Module,
    x: SliceableImages,
    y: Tensor,
    attack: Attack | MarginAttack,
    *,
    restarts: int = 1,
    seed: int = 0,
    teacher: Callable[[Tensor], Tensor] | None = None,
    rank: int = 0,
    processes: int = 1,
    sum_over_processes: Callable[[Tensor], Tensor] = lambda counts: counts,
) -> tuple[ImageResults, TeacherReliability | None]:
    """Clean and attacked results on x (N, C, H, W), y (N,); `network` is in eval mode.

    With a `teacher`, also its reliability on the first x'. Each of several processes takes every
    P-th batch, and `sum_over_processes` adds up their tensors. A batch that the device cannot hold
    is evaluated in parts; each image keeps its start. Raises OutOfMemoryError where one image is
    too many.
    """
    clean, robust = torch.zeros(2, len(x), dtype=torch.int64, device=y.device)
    cases = torch.zeros(3, dtype=torch.int64, device=y.device)
    mine = range(rank * BATCH, len(x), processes * BATCH)
    at_once, pace = BATCH, Pace(f"evaluation: {{}} batches of {BATCH} images", len(mine))
    for done, place in enumerate(mine, start=1):
        rows = slice(place, place + BATCH)
        seeds = [_seed(seed, place, restart) for restart in range(restarts)]
        results = partial(_batch_results, network, attack, x[rows], y[rows], seeds, teacher)
        found, at_once = compute_in_parts(results, len(y[rows]), at_once, place="the evaluation")
        clean[rows], robust[rows], on_clean, on_adversarial = found
        cases += torch.stack(
            [
                on_adversarial.sum(),
                (on_clean & ~on_adversarial).sum(),
                (~on_clean & ~on_adversarial).sum(),
            ]
        )
        pace.at(done)
    all_clean, all_robust = (sum_over_processes(counts).bool().cpu() for counts in (clean, robust))
    results_of_all = ImageResults(y.cpu(), all_clean, all_robust)
    if teacher is None:
        return results_of_all, None
    shares = (sum_over_processes(cases).double() / len(x)).tolist()
    return results_of_all, TeacherReliability(*shares)


def _batch_results(
    network: nn.Module,
    attack: Attack | MarginAttack,
    x: Tensor,
    y: Tensor,
    seeds: Sequence[int],
    teacher: Callable[[Tensor], Tensor] | None,
    part: slice,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Results of a part of a batch, four booleans (n,): True where predictions are correct.

    The network on x; the network on x and the x' of every seed; the teacher on x; the teacher on
    the first x'.
    """
    x_part, y_part = x[part], y[part]

    clean = robust = teacher_clean = teacher_adversarial = correct(network, x_part, y_part)
    for number, seed in enumerate(seeds):
        x_adv = attacked_images(network, attack, x, y, seed=seed, part=part)
        robust = robust & correct(network, x_adv, y_part)
        if teacher is not None and number == 0:
            teacher_clean, teacher_adversarial = (
                correct(teacher, images, y_part) for images in (x_part, x_adv)
            )
    return clean, robust, teacher_clean, teacher_adversarial


def compute_in_parts(
    compute: Callable[[slice], tuple[Tensor, ...]], count: int, at_once: int, *, place: str
) -> tuple[list[Tensor], int]:
    """`compute` over `count` images, at most `at_once` together, halved until memory suffices.

    Returns the joined tensors (count, ...) and the number of images that fit. Raises
    OutOfMemoryError, which names this `place`, where one image is too many.
    """
    while True:
        try:
            parts = [compute(slice(begin, begin + at_once)) for begin in range(0, count, at_once)]
            return [torch.cat(part) for part in zip(*parts, strict=True)], at_once
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if min(at_once, count) == 1:
                raise OutOfMemoryError(
                    f"{place}: the device is out of memory with one image at a time; does another"
                    " program use it?"
                ) from error
        # Outside the handler: the error keeps all computed tensors alive.
        at_once = (min(at_once, count) + 1) // 2


def _seed(*parts: int) -> int:
    """One seed from several numbers, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
