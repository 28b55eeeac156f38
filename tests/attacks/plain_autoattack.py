"""AutoAttack from its papers, one image at a time in NumPy: what `autoattack.py` is held to.

APGD and DLR: Croce & Hein 2020, algorithm 1 and section 4; FAB: Croce & Hein 2020
(https://arxiv.org/abs/1907.02044), algorithm 1; Square: Andriushchenko et al. 2020
(https://arxiv.org/abs/1912.00049), algorithms 1 and 2. Linf alone. Random numbers are given.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rkdsearch.attacks.autoattack import Part

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """z = W tanh(V x + v) + w, pixels x (D,) to logits (K,), in double precision."""

    hidden: Array
    hidden_bias: Array
    out: Array
    out_bias: Array

    def logits(self, x: Array) -> Array:
        return self.out @ np.tanh(self.hidden @ x + self.hidden_bias) + self.out_bias

    def gradient(self, x: Array, slope: Array) -> Array:
        """d(slope . z)/dx."""
        h = np.tanh(self.hidden @ x + self.hidden_bias)
        gradient: Array = self.hidden.T @ ((self.out.T @ slope) * (1 - h * h))
        return gradient


Loss = Callable[[Array], tuple[float, Array]]  # logits to the loss and its gradient


def cross_entropy(y: int) -> Loss:
    def loss(z: Array) -> tuple[float, Array]:
        p = np.exp(z - z.max())
        p /= p.sum()
        return float(-np.log(p[y])), p - np.eye(len(z))[y]

    return loss


def targeted(y: int, target: int) -> Loss:
    """DLR to a target; the margin where there are fewer than four classes."""

    def loss(z: Array) -> tuple[float, Array]:
        one = np.eye(len(z))
        above, d_above = z[target] - z[y], one[target] - one[y]
        if len(z) < 4:
            return float(above), d_above
        order = np.argsort(-z)
        below = z[order[0]] - (z[order[2]] + z[order[3]]) / 2 + 1e-12
        d_below = one[order[0]] - (one[order[2]] + one[order[3]]) / 2
        return float(above / below), d_above / below - above / below**2 * d_below

    return loss


def apgd(network: Network, x: Array, y: int, eps: float, loss: Loss, start: Array, n: int) -> bool:
    """True where an error is found."""

    def at(point: Array) -> tuple[float, Array, bool]:
        z = network.logits(point)
        value, slope = loss(z)
        return value, network.gradient(point, slope), int(z.argmax()) != y

    def project(point: Array) -> Array:
        return np.clip(np.clip(point, x - eps, x + eps), 0, 1)

    checkpoints, gap = [max(int(0.22 * n), 1)], max(int(0.22 * n), 1)
    while checkpoints[-1] < n:
        gap = max(gap - max(int(0.03 * n), 1), int(0.06 * n), 1)
        checkpoints.append(checkpoints[-1] + gap)
    point = before = np.clip(start, 0, 1)
    value, gradient, wrong = at(point)
    best, best_value, best_gradient = point, value, gradient
    values, step, last, last_best, halved = [0.0], 2 * eps, 0, value, True
    for k in range(1, n + 1):
        momentum = 0.75 if k > 1 else 1.0
        z = project(point + step * np.sign(gradient))
        point, before = (
            project(point + momentum * (z - point) + (1 - momentum) * (point - before)),
            point,
        )
        value, gradient, found = at(point)
        wrong |= found
        values.append(value)
        if value > best_value:
            best, best_value, best_gradient = point, value, gradient
        if k in checkpoints:
            rises = sum(values[i] > values[i - 1] for i in range(last + 1, k + 1))
            oscillates = rises <= 0.75 * (k - last)
            halve = oscillates or (not halved and last_best >= best_value)
            halved, last_best, last = halve, best_value, k
            if halve:
                step /= 2
                point, gradient = best, best_gradient
    return wrong


def onto_plane(x: Array, w: Array, c: float) -> Array:
    """The shortest move d (Linf) with w . (x + d) + c = 0 and x + d in [0, 1].

    Where the box does not reach the plane: the whole move towards it.
    """
    value = w @ x + c
    room = np.where(-np.sign(value) * w > 0, 1 - x, x) * (w != 0)
    towards = -np.sign(value) * np.sign(w)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        moved = value + w @ (towards * np.minimum(middle, room))
        low, high = (middle, high) if moved * value > 0 else (low, middle)
    return towards * np.minimum(high, room)


def fab(network: Network, x: Array, y: int, target: int, eps: float, n: int) -> bool:
    """True where an error is found within eps."""
    point, nearest = x, np.inf
    one = np.eye(len(network.out_bias))
    for _ in range(n):
        w = network.gradient(point, one[target] - one[y])
        z = network.logits(point)
        c = z[target] - z[y] - w @ point
        d1, d2 = onto_plane(point, w, c), onto_plane(x, w, c)
        a1, a2 = max(np.abs(d1).max(), 1e-8), max(np.abs(d2).max(), 1e-8)
        alpha = min(a1 / (a1 + a2), 0.1)
        point = np.clip((1 - alpha) * (point + 1.05 * d1) + alpha * (x + 1.05 * d2), 0, 1)
        if int(network.logits(point).argmax()) != y:
            nearest = min(nearest, np.abs(point - x).max())
            point = x + 0.9 * (point - x)
    return bool(nearest <= eps)


def square(
    network: Network, x: Array, y: int, eps: float, shape: tuple[int, ...], seed: int, n: int
) -> bool:
    """True where an error is found. `shape` of the image: channels, height, width."""
    channels, height, width = shape
    torch.manual_seed(seed)

    def signs(*size: int) -> Array:
        return (2 * torch.rand(size) - 1).sign().double().numpy()

    def place(room: int) -> int:
        return int(room * torch.rand(1))

    def lead(point: Array) -> float:
        z = network.logits(point.ravel())
        return float(z[y] - np.delete(z, y).max())

    image = x.reshape(shape)
    point = np.clip(image + eps * signs(1, channels, 1, width)[0], 0, 1)
    best = lead(point)
    for i in range(n):
        if best <= 0:
            break
        share = 0.8 / 2 ** sum(i > end for end in (10, 50, 200, 500, 1000, 2000, 4000))
        side = min(max(round((share * height * width) ** 0.5), 1), height, width)
        top, left = place(height - side), place(width - side)
        stripe = np.zeros(shape)
        stripe[:, top : top + side, left : left + side] = 2 * eps * signs(channels, 1, 1)
        tried = np.clip(np.clip(point + stripe, image - eps, image + eps), 0, 1)
        if lead(tried) < best:
            point, best = tried, lead(tried)
    return int(network.logits(point.ravel()).argmax()) != y


def fooled(
    network: Network,
    part: Part,
    x: Array,
    y: int,
    eps: float,
    shape: tuple[int, ...],
    start: Array,
    *,
    seed: int,
    steps: int,
    queries: int,
) -> bool:
    """True where a part of AutoAttack finds an error for the image x, which is right."""
    strongest = np.argsort(-network.logits(x))
    target = -1 if part.target is None else int(strongest[part.target])
    match part.attack:
        case "apgd-ce":
            return apgd(network, x, y, eps, cross_entropy(y), start, steps)
        case "apgd-t":
            return apgd(network, x, y, eps, targeted(y, target), start, steps)
        case "fab-t":
            return fab(network, x, y, target, eps, steps)
        case _:
            return square(network, x, y, eps, shape, seed, queries)
