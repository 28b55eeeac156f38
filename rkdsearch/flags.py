"""Checks of an attack on a network, image by image: signs that it does not find what is there.

A network may hide its gradient (huge logits, rounding, noise, probabilities in place of logits) and
look robust. No attack proves that it does not; these checks count, on some images, what a sound
network does not show. `results.flags` says which counts are flags, and what each means.

An attack of n steps costs n forward and backward passes an image; its checks cost 4 n (once as it
is, twice as long from another start, once at a huge eps), `QUERIES` forward passes of the images
that are still right, and a hundred and twenty more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor, nn

from rkdsearch.accuracy import BATCH, attacked_images, compute_in_parts, correct, ieee_fp32
from rkdsearch.attacks import (
    Attack,
    Ball,
    LogitLoss,
    MarginAttack,
    Noise,
    build_ball,
    input_gradient,
)
from rkdsearch.attacks.autoattack import square_covers
from rkdsearch.attacks.margin import margin, soft_margin
from rkdsearch.attacks.objectives import gradient_of
from rkdsearch.methods import Student, inner
from rkdsearch.results.rows import Checks

IMAGES = 200  # that are checked: enough to detect a sign that 6 % of the images show
QUERIES = 100  # of Square
SEED = 20_260_101
DIFFERENCE = 1e-3  # of the largest logit; rounding in another order is some 1e-6 of it
SCALES = (0.01, 0.1)  # of eps: lengths of the small steps uphill
NUDGE = 1e-4  # pixels: moves units that are on, and hardly turns any on or off
# Pixels without a gradient count where nudging them moves the logits by more than this share of
# what nudging the others does: a few units near 0 may do less.
NUDGED = 0.02
DIRECTIONS = 8  # random ones, along which the gradient is compared with differences of the loss
SPANS, POINTS = (0.1, 0.3), 4  # half lengths, of eps; points at which the gradient is taken
# correlation of both; a sound network has 0.97 or more on nearly all images
AGREEMENT = 0.9


@dataclass(frozen=True)
class ImageChecks:
    """Results of the checks on N images, on the CPU; the parts of a set may be joined.

    `y` and `predicted` (N,) classes; `sums` (N,) of the outputs, NaN where one is negative; the
    others (N,) booleans, named as the counts of `Checks`. `broken_without_gradient` is None where
    no attack without gradients knows the ball.
    """

    y: Tensor
    predicted: Tensor
    sums: Tensor
    without_gradient: Tensor
    not_uphill: Tensor
    unlike_differences: Tensor
    right_at_huge_eps: Tensor
    kept_by_more_steps: Tensor
    broken_by_more_steps: Tensor
    differing: Tensor
    broken_without_gradient: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The parts of a set, in their order."""
        columns = ([getattr(part, f.name) for part in parts] for f in fields(cls))
        # Square's column, the last, is missing in all or in none
        return cls(*(torch.cat(column) for column in columns if column[0] is not None))

    @property
    def counts(self) -> Checks:
        """The counts over these images."""
        modal = self.predicted.mode().values
        other = self.y != modal
        middle = self.sums.nanmedian()
        alike = (self.sums > 0) & ((self.sums - middle).abs() <= 1e-3 * middle)
        square = self.broken_without_gradient
        return Checks(
            images=len(self.y),
            right=int((self.predicted == self.y).sum()),
            without_gradient=int(self.without_gradient.sum()),
            not_uphill=int(self.not_uphill.sum()),
            unlike_differences=int(self.unlike_differences.sum()),
            right_at_huge_eps=int(self.right_at_huge_eps.sum()),
            kept_by_more_steps=int(self.kept_by_more_steps.sum()),
            broken_by_more_steps=int(self.broken_by_more_steps.sum()),
            broken_without_gradient=None if square is None else int(square.sum()),
            differing=int(self.differing.sum()),
            probabilities=int(alike.sum()),
            given_one_class=int((self.predicted[other] == modal).sum()),
            of_other_classes=int(other.sum()),
        )


def spread(images: int, most: int = IMAGES) -> Tensor:
    """Positions of at most `most` of so many images, evenly spaced: of all classes in most sets."""
    return torch.linspace(0, images - 1, min(images, most)).round().long()


@ieee_fp32()
def check(
    network: nn.Module, x: Tensor, y: Tensor, attack: Attack | MarginAttack, *, seed: int = SEED
) -> ImageChecks:
    """The checks of `attack` on at most `BATCH` images x (N, C, H, W) with labels y (N,).

    `network` is in eval mode and frozen. The global random state stays as it was. Images that the
    device cannot hold at once are taken in parts. Raises OutOfMemoryError where one is too many.
    """
    assert 0 < len(x) <= BATCH, f"1 to {BATCH} images at a time, got {len(x)}"
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        columns, _ = compute_in_parts(
            lambda part: _checked(network, x[part], y[part], attack, seed),
            len(x),
            BATCH,
            place="the checks behind flags",
        )
    return ImageChecks(y.cpu(), *(column.cpu() for column in columns))


def _checked(
    network: nn.Module, x: Tensor, y: Tensor, attack: Attack | MarginAttack, seed: int
) -> tuple[Tensor, ...]:
    """The fields of `ImageChecks` behind `y`; the last is missing where it would be None."""
    logits = _logits(network, x)
    right = correct(network, x, y)
    start = attack.start(x, Noise(torch.Generator(device=x.device).manual_seed(seed)))

    def survived(by: Attack | MarginAttack, *, seed: int, start: Tensor | None = None) -> Tensor:
        x_adv = attacked_images(network, by, x, y, seed=seed, start=start)
        return right & correct(network, x_adv, y)

    plain = survived(attack, seed=seed, start=start)
    longer = survived(replace(attack, steps=2 * attack.steps), seed=seed + 1)
    huge = survived(_with_grey_image(attack, x), seed=seed, start=start)
    stuck, downhill = _gradients(network, y, start, attack)
    sums = torch.where((logits >= 0).all(dim=1), logits.sum(dim=1), torch.nan)
    unlike = right & _unlike_differences(network, y, start, attack.ball, seed)
    columns = [logits.argmax(dim=1), sums, right & stuck, right & downhill, unlike, huge]
    columns += [longer & ~plain, plain & ~longer, _differing(network, x, logits)]
    square = _broken_by_square(network, x, y, attack, plain & longer, seed)
    return tuple(columns) if square is None else (*columns, square)


@torch.no_grad()
def _logits(network: nn.Module, x: Tensor) -> Tensor:
    """(N, K) in float32 at least, in memory of their own: nobody may write over the network's."""
    logits: Tensor = network(x)
    return logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)


def _with_grey_image(attack: Attack | MarginAttack, x: Tensor) -> Attack | MarginAttack:
    """The attack in a ball that holds the grey image, whichever image is its centre.

    All images can become this one, so no network stays right on images of two classes.
    """
    ball = build_ball(attack.ball.norm, attack.ball.grey_eps(x[0].numel()))
    if isinstance(attack, MarginAttack):
        return replace(attack, ball=ball)
    return replace(attack, ball=ball, step_size=attack.step_size / attack.ball.eps * ball.eps)


def _gradients(
    network: nn.Module, y: Tensor, start: Tensor, attack: Attack | MarginAttack
) -> tuple[Tensor, Tensor]:
    """Two booleans (N,), over all losses of the attack, at its start.

    True where no loss has a gradient; where one has, and none leads uphill. A gradient that is zero
    on some pixels counts as none where a small change of these moves the logits.
    """
    losses = (
        [soft_margin(y), margin(y)]
        if isinstance(attack, MarginAttack)
        else [inner.classification(y)]
    )
    student, before = Student(network), _logits(network, start)
    stuck, downhill = (torch.ones_like(y, dtype=torch.bool) for _ in range(2))
    for loss in losses:
        gradient = input_gradient(loss.of(student), start)
        zero, finite = gradient == 0, gradient.flatten(1).isfinite().all(dim=1)
        nudged = start + NUDGE * (0.5 - start).sign()
        without, rest = (
            (_logits(network, torch.where(here, nudged, start)) - before).abs().amax(dim=1)
            for here in (zero, ~zero)
        )
        rounding = 1e-6 * before.abs().amax(dim=1)
        moved = zero.flatten(1).any(dim=1) & (without > NUDGED * rest + rounding)
        none = zero.flatten(1).all(dim=1) | moved | ~finite
        uphill = torch.zeros_like(none)
        for scale in SCALES:
            step = scale * attack.ball.eps * attack.ball.direction(gradient.nan_to_num())
            after = _logits(network, (start + step).clamp(0, 1))
            for measure in (loss, margin(y)):  # a loss may be lost in rounding: the margin is not
                uphill |= measure(after) > measure(before)
        stuck &= none
        downhill &= none | ~uphill
    return stuck, downhill & ~stuck


def _unlike_differences(
    network: nn.Module, y: Tensor, start: Tensor, ball: Ball, seed: int
) -> Tensor:
    """(N,) True where the gradient disagrees with finite differences of the margin.

    Along random segments through x_0, the differences of the margin to the strongest class are
    compared with the integrals of its directional derivative: True where their correlation is below
    `AGREEMENT`. False where there is no gradient, or the differences drown in rounding.
    """
    logits = _logits(network, start)
    strongest = logits.scatter(1, y[:, None], -torch.inf).argmax(dim=1, keepdim=True)

    def lead(z: Tensor) -> Tensor:
        return (z.gather(1, strongest) - z.gather(1, y[:, None])).squeeze(1)

    def slope(z: Tensor) -> Tensor:
        return torch.zeros_like(z).scatter_(1, strongest, 1).scatter_(1, y[:, None], -1)

    gradient_at = gradient_of(LogitLoss(lead, slope).of(Student(network)), start)
    # in units of its largest number: it may be too small to be squared
    unit = gradient_at(start).nan_to_num().abs().amax(dim=(1, 2, 3), keepdim=True)
    noise = Noise(torch.Generator(device=start.device).manual_seed(seed))
    # each pixel moves by another length: ripples finer than a step are met at another place in each
    ways = [ball.random_perturbation(noise.uniform(start)) for _ in range(DIRECTIONS)]

    def foretold(way: Tensor) -> Tensor:
        middles = [(2 * point + 1) / POINTS - 1 for point in range(POINTS)]
        slopes = [gradient_at(start + m * way).nan_to_num() / unit * way for m in middles]
        return torch.stack([slope.flatten(1).sum(dim=1) for slope in slopes]).mean(dim=0)

    def seen(way: Tensor) -> Tensor:
        return lead(_logits(network, start + way)) - lead(_logits(network, start - way))

    rounding = _resolution(network, start) * logits.abs().amax(dim=1)
    unlike = torch.ones_like(y, dtype=torch.bool)
    for span in SPANS:
        p, q = (
            torch.stack([rise(span * way) for way in ways]).double() for rise in (foretold, seen)
        )
        agree = (p * q).sum(dim=0) >= AGREEMENT * p.norm(dim=0) * q.norm(dim=0)
        unlike &= ~(agree | p.isnan().any(dim=0)) & (q.abs().amax(dim=0) > 100 * rounding)
        if not unlike.any():
            break
    return unlike


@torch.no_grad()
def _resolution(network: nn.Module, x: Tensor) -> float:
    """The relative resolution of the outputs' own dtype; 1 for whole numbers."""
    dtype = network(x[:1]).dtype
    return torch.finfo(dtype).eps if dtype.is_floating_point else 1.0


def _differing(network: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
    """(N,) True where a second evaluation gives other logits or another class.

    In halves, each in the other order, and with gradients recorded.
    """
    order = torch.arange(len(x), device=x.device).flip(0)
    again = torch.empty_like(logits)
    for rows in order.tensor_split(2):
        if len(rows):
            with torch.enable_grad():
                again[rows] = network(x[rows].requires_grad_()).detach().to(logits.dtype)
    finite = logits.isfinite().all(dim=1) & again.isfinite().all(dim=1)
    largest = logits.abs().amax(dim=1)
    moved = (again - logits).abs().amax(dim=1) > DIFFERENCE * largest
    return (finite & moved) | (again.argmax(dim=1) != logits.argmax(dim=1))


def _broken_by_square(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack | MarginAttack,
    robust: Tensor,
    seed: int,
) -> Tensor | None:
    """(N,) True for `robust` images that a short Square breaks; None where it has no such ball."""
    from pyautoattack.square import SquareAttack

    ball = attack.ball
    if ball.autoattack is None or (ball.autoattack != "Linf" and not square_covers(*x.shape[2:])):
        return None
    broken = torch.zeros_like(robust)
    rows = robust.nonzero().squeeze(1)
    if len(rows):
        square = SquareAttack(
            lambda images: _logits(network, images),
            norm=ball.autoattack,
            eps=ball.eps,
            n_queries=QUERIES,
            seed=seed,
            device=x.device,
        )
        # contiguous: the package takes views of images
        x_adv = square.perturb(x[rows].contiguous(), y[rows])
        broken[rows] = ~correct(network, x_adv, y[rows])
    return broken
