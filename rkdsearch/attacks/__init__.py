"""Attacks: the balls, the objectives, the ascent loop, the margin attack, AutoAttack."""

from rkdsearch.attacks.balls import BALLS, L2, Ball, Linf, Norm, Projection, build_ball
from rkdsearch.attacks.margin import MarginAttack
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
    "MarginAttack",
    "Network",
    "Noise",
    "Norm",
    "Projection",
    "Start",
    "build_ball",
    "input_gradient",
]
