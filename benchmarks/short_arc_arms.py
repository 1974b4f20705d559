"""The arms of short_arc.py: a control of advantages for each name and coefficient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from featherweight.reasoning.advantages import Control, RewardControl
from featherweight.reasoning.governor import Governor
from featherweight.reasoning.rewards import BY_NAME
from featherweight.reasoning.short_arc import ShortARC

FLOOR = 3.0  # tokens; the shortest thought of the task has two tokens an operation
GOVERNOR = Governor(warmup=10, ramp=20)


def short_arc(strength: float, **changes: Any) -> ShortARC:
    """The controller of this benchmark at a strength."""
    governor = replace(GOVERNOR, strongest=strength)
    return replace(ShortARC(floor=FLOOR, governor=governor), **changes)


def ungoverned(strength: float) -> ShortARC:
    return short_arc(strength, governor=None, fixed_pressure=strength)


MAIN_ARMS = ("none", "linear", "kimi", "scalar", "decoupled")
MAKERS: dict[str, Callable[[float], Control]] = {
    "scalar": lambda c: short_arc(c, form="scalar"),
    "decoupled": lambda c: short_arc(c),
    "no_gate": lambda c: short_arc(c, gate="off"),
    "shortest_target": lambda c: short_arc(c, target="shortest"),
    "group_std": lambda c: short_arc(c, normalize=True),
    "no_governor": ungoverned,
}
ABLATIONS = ("no_gate", "shortest_target", "group_std", "no_governor")
# By arm: what is swept. A rule's coefficient is the argument named in COEFFICIENT_NAMES.
COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "linear": (0.003, 0.01, 0.02, 0.03),
    "kimi": (0.2, 0.4, 0.8, 1.6),
    "scalar": (0.1, 0.2, 0.3),
    "decoupled": (0.25, 0.5, 1.0, 2.0),
    **dict.fromkeys(ABLATIONS, (1.0,)),
}
COEFFICIENT_NAMES = {"linear": "alpha", "kimi": "weight"}
RULE_ARMS: tuple[str, ...] = ()


def control(arm: str, coefficient: float) -> Control:
    """The control of an arm."""
    if arm in MAKERS:
        return MAKERS[arm](coefficient)
    rule = BY_NAME[arm]
    name = COEFFICIENT_NAMES.get(arm)
    return RewardControl(rule(**{name: coefficient}) if name else rule())
