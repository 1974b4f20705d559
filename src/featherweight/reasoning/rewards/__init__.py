"""Reward rules by name: how much an answer is worth, by its correctness and its length."""

from __future__ import annotations

from .base import Rule, Sizes, State, rewards
from .linear import Accuracy, Linear

RULES: dict[str, type[Rule]] = {"none": Accuracy, "linear": Linear}

__all__ = ["RULES", "Accuracy", "Linear", "Rule", "Sizes", "State", "rewards"]
