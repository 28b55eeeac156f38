"""Attacks: the balls, the objectives, the one ascent loop, AutoAttack."""

from rkdsearch.attacks.balls import BALLS, L2, Ball, Linf, Norm, Projection, build_ball
from rkdsearch.attacks.objectives import (
    AttackObjective,
    LogitLoss,
    LogitObjective,
    Network,
    input_gradient,
)
from rkdsearch.attacks.pgd import Attack, Noise, Start

__all__ = [
    "BALLS",
    "L2",
    "Attack",
    "AttackObjective",
    "Ball",
    "Linf",
    "LogitLoss",
    "LogitObjective",
    "Network",
    "Noise",
    "Norm",
    "Projection",
    "Start",
    "build_ball",
    "input_gradient",
]
