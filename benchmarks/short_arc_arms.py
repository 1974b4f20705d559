"""The arms of short_arc.py: a control of advantages for each name and coefficient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from featherweight.reasoning import rewards
from featherweight.reasoning.advantages import Control, RewardControl
from featherweight.reasoning.decoupled_rewards import DecoupledRewards
from featherweight.reasoning.governor import Governor
from featherweight.reasoning.group_filter import GroupFilter
from featherweight.reasoning.rewards import Rule
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
CONTROLS: dict[str, tuple[Callable[[float], Control], tuple[float, ...]]] = {
    "gfpo": (lambda c: GroupFilter(k=int(c)), (2, 3, 4, 6)),
    "drpo": (lambda c: DecoupledRewards(lam=c), (0.05, 0.1, 0.2, 0.4)),
}
# The published rules, each with the constant that is swept. Their authors' values are for answers
# of thousands of tokens; these are for tens.
RULES: dict[str, tuple[Callable[[float], Rule], tuple[float, ...]]] = {
    "linear": (lambda c: rewards.Linear(alpha=c), (0.003, 0.01, 0.02, 0.03)),
    "kimi": (lambda c: rewards.Kimi(weight=c), (0.2, 0.4, 0.8, 1.6)),
    "aalc": (lambda c: rewards.AALC(weight=c), (0.03, 0.1, 0.3, 0.8)),
    "a_dlp": (
        lambda c: rewards.ADLP(penalty=c, rate=c / 2, reference=0.9),
        (0.001, 0.003, 0.01, 0.03),
    ),
    "alp": (lambda c: rewards.ALP(beta=c), (0.001, 0.002, 0.004, 0.007)),
    "cosine": (lambda c: rewards.Cosine(right_end=c), (0.8, 0.5, 0.2, 0.0)),
    "da_dler": (lambda c: rewards.DADLER(easy=int(c), hard=2 * int(c)), (16, 24, 32, 48)),
    "dapo_overlong": (lambda c: rewards.DAPOOverlong(cache=c), (0.5, 0.7, 0.8, 0.9)),
    "dast": (lambda c: rewards.DAST(), (0.0,)),
    "dler": (lambda c: rewards.DLER(target=int(c)), (24, 32, 48, 64)),
    "hapo": (lambda c: rewards.HAPO(weight=c), (0.1, 0.3, 0.6, 1.0)),
    "jet": (lambda c: rewards.JET(alpha=c), (0.3, 0.6, 1.2, 2.4)),
    "laser": (lambda c: rewards.Laser(target=int(c)), (16, 24, 32, 48)),
    "laser_d": (lambda c: rewards.LaserD(bonus=c), (0.25, 0.5, 1.0, 2.0)),
    "laser_de": (lambda c: rewards.LaserDE(bonus=c), (0.25, 0.5, 1.0, 2.0)),
    "prime_rl": (lambda c: rewards.PrimeRL(weight=c), (0.1, 0.25, 0.5, 1.0)),
    "s_grpo": (lambda c: rewards.SGRPO(), (0.0,)),
    "short_rl": (lambda c: rewards.ShortRL(tolerance=int(c)), (2, 4, 8, 16)),
    "shorterbetter": (lambda c: rewards.ShorterBetter(beta=c), (0.003, 0.01, 0.03, 0.1)),
    "thinkprune": (
        lambda c: rewards.ThinkPrune(targets=(4 * int(c), 2 * int(c), int(c)), stage_steps=40),
        (16, 24, 32, 48),
    ),
    "tlmre": (lambda c: rewards.TLMRE(alpha=c), (0.05, 0.1, 0.2, 0.4)),
}
# l1_exact and l1_max need prompts that name a budget, o1_pruner answers of a reference model.
RULE_ARMS = tuple(name for name in (*RULES, *CONTROLS) if name not in MAIN_ARMS)
COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "scalar": (0.1, 0.2, 0.3),
    "decoupled": (0.25, 0.5, 1.0, 2.0),
    **dict.fromkeys(ABLATIONS, (0.25, 0.5, 1.0, 2.0)),
    **{name: values for name, (_, values) in RULES.items()},
    **{name: values for name, (_, values) in CONTROLS.items()},
}


def control(arm: str, coefficient: float) -> Control:
    """The control of an arm."""
    if arm == "none":
        return RewardControl()
    if arm in MAKERS:
        return MAKERS[arm](coefficient)
    if arm in CONTROLS:
        return CONTROLS[arm][0](coefficient)
    return RewardControl(RULES[arm][0](coefficient))
