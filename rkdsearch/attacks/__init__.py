"""Attacks: the balls, the one ascent loop, AutoAttack."""

from rkdsearch.attacks.balls import L2, Ball, Linf, Norm, build_ball
from rkdsearch.attacks.pgd import Attack, Noise, Objective, Start, input_gradient

__all__ = ["L2", "Attack", "Ball", "Linf", "Noise", "Norm", "Objective", "Start", "build_ball", "input_gradient"]
