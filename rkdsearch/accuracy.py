"""The exam: clean and robust accuracy of one network, image by image, by a protocol that no training setting can change.

The fidelity ladder is clean -> PGD-k (validation) -> PGD-20 -> AutoAttack (test). Every image keeps
its own verdict, so that two networks can be compared on the same images, and the verdicts do not
depend on how many processes share the work.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from rkdsearch.attacks import Attack, Linf, Noise, Norm
from rkdsearch.attacks.autoattack import auto_attack
from rkdsearch.errors import OutOfMemoryError, is_out_of_memory
from rkdsearch.methods import Student, inner
from rkdsearch.pace import Pace

BATCH = 250  # images; a fixed number, because each batch's random start is seeded by its place


@dataclass(frozen=True)
class Verdict:
    """What happened to each of N images: labels (N,), right on x (N,) booleans, right on x and on every x' (N,) booleans."""

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
        """The smallest robust accuracy of any class that has images, a fraction of 1."""
        classes = int(self.y.max()) + 1
        images = torch.bincount(self.y, minlength=classes)
        robust = torch.bincount(self.y[self.robust], minlength=classes)
        return float((robust[images > 0].double() / images[images > 0]).min())


@dataclass(frozen=True)
class Reliability:
    """How far the teacher can be trusted where the student is attacked: IAD's three cases, as shares of the images."""

    right_on_adversarial: float
    right_on_clean_only: float
    wrong_on_both: float


class Sliced(Protocol):
    """Images (N, C, H, W), of which so many at a time become floats; a tensor is one."""

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, part: slice, /) -> Tensor:
        """Pixels of [0, 1]."""
        ...


def allow_tf32(*, allowed: bool) -> None:
    """Whether a GPU may round what it multiplies to TF32's 10 bits. torch lets convolutions do so by itself, and fp32 is then another on each GPU."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


@contextmanager
def ieee_fp32() -> Iterator[None]:
    """No TF32 within, whatever is allowed outside."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    allow_tf32(allowed=False)
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def pgd(
    network: nn.Module,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    *,
    seed: int,
    part: slice = slice(None),
) -> Tensor:
    """x' that maximises the cross-entropy of `network` (eval mode, frozen), from a start drawn with `seed`.

    Of `part` of the images alone, where it is given; their start is the same as among all.
    """
    start = attack.start(x, Noise(torch.Generator(device=x.device).manual_seed(seed)))
    return attack.climb(inner.classification(y[part]).of(Student(network)), x[part], start[part])


@ieee_fp32()
def judge(
    network: nn.Module,
    x: Sliced,
    y: Tensor,
    attack: Attack,
    *,
    restarts: int = 1,
    seed: int = 0,
    teacher: Callable[[Tensor], Tensor] | None = None,
    rank: int = 0,
    processes: int = 1,
    total: Callable[[Tensor], Tensor] = lambda counts: counts,
) -> tuple[Verdict, Reliability | None]:
    """Clean and PGD verdicts on x (N, C, H, W), y (N,); with a `teacher`, its reliability on the student's first x'.

    `network` is in eval mode. Several processes take every P-th batch each; `total` then adds their
    tensors up. A batch that the device cannot hold is judged in parts, each image from the same
    start. Raises OutOfMemoryError where one image is too many.
    """
    clean, robust = torch.zeros(2, len(x), dtype=torch.int64, device=y.device)
    cases = torch.zeros(3, dtype=torch.int64, device=y.device)
    mine = range(rank * BATCH, len(x), processes * BATCH)
    at_once, pace = BATCH, Pace(f"exam: {{}} batches of {BATCH} images", len(mine))
    for done, place in enumerate(mine, start=1):
        rows = slice(place, place + BATCH)
        seeds = [_seed(seed, place, restart) for restart in range(restarts)]
        answers = partial(_answers, network, attack, x[rows], y[rows], seeds, teacher)
        found, at_once = in_parts(answers, len(y[rows]), at_once, place="the exam")
        clean[rows], robust[rows], on_clean, on_adversarial = found
        cases += torch.stack(
            [
                on_adversarial.sum(),
                (on_clean & ~on_adversarial).sum(),
                (~on_clean & ~on_adversarial).sum(),
            ]
        )
        pace.at(done)
    verdict = Verdict(y.cpu(), total(clean).bool().cpu(), total(robust).bool().cpu())
    if teacher is None:
        return verdict, None
    return verdict, Reliability(*(total(cases).double() / len(x)).tolist())


def _answers(
    network: nn.Module,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    seeds: Sequence[int],
    teacher: Callable[[Tensor], Tensor] | None,
    part: slice,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a part of a batch: right on x, right on the x' of all seeds too, and the teacher right on x and on the first x'. (n,) booleans."""
    x_part, y_part = x[part], y[part]

    def right(judged: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        with torch.no_grad():
            return judged(images).argmax(dim=1) == y_part

    clean = robust = taught = deceived = right(network, x_part)
    for number, seed in enumerate(seeds):
        x_adv = pgd(network, attack, x, y, seed=seed, part=part)
        robust = robust & right(network, x_adv)
        if teacher is not None and number == 0:
            taught, deceived = right(teacher, x_part), right(teacher, x_adv)
    return clean, robust, taught, deceived


def in_parts(
    answers: Callable[[slice], tuple[Tensor, ...]], count: int, at_once: int, *, place: str
) -> tuple[list[Tensor], int]:
    """The answers (n, ...) for `count` images, at most `at_once` of them together, or as many as there is memory for; and how many these were.

    Raises OutOfMemoryError, of this `place`, where one image is too many.
    """
    while True:
        try:
            parts = [answers(slice(begin, begin + at_once)) for begin in range(0, count, at_once)]
            return [torch.cat(part) for part in zip(*parts, strict=True)], at_once
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if min(at_once, count) == 1:
                raise OutOfMemoryError(
                    f"{place}: the device is out of memory with one image at a time; does another"
                    " program use it?"
                ) from error
        # Outside the handler: the error holds on to all that was computed.
        at_once = (min(at_once, count) + 1) // 2


@ieee_fp32()
def judge_by_autoattack(
    network: nn.Module, x: Tensor, y: Tensor, *, attack: Attack, seed: int = 0
) -> tuple[Verdict, list[str]]:
    """The verdicts of AutoAttack, standard, in `attack`'s ball; and what the package's own checks complain of."""
    norm: Norm = "linf" if isinstance(attack.ball, Linf) else "l2"
    with torch.no_grad():
        clean = torch.cat([network(xs).argmax(dim=1) for xs in torch.split(x, BATCH)]) == y
    robust, flags = auto_attack(network, x, y, norm=norm, eps=attack.ball.eps, seed=seed)
    return Verdict(y.cpu(), clean.cpu(), robust.cpu()), flags


def _seed(*parts: int) -> int:
    """One seed from several numbers, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
