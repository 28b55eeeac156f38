"""Attacks: the balls, the one ascent loop, AutoAttack."""

from rkdsearch.attacks.balls import L2, Ball, Linf, Norm, Projection, build_ball
from rkdsearch.attacks.pgd import Attack, Network, Noise, Objective, OfLogits, Start, input_gradient

__all__ = [
    "L2",
    "Attack",
    "Ball",
    "Linf",
    "Network",
    "Noise",
    "Norm",
    "Objective",
    "OfLogits",
    "Projection",
    "Start",
    "build_ball",
    "input_gradient",
]
