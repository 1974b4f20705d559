"""What a reward rule is: a pure function from graded answers to numbers.

A rule sees one group at a time, that is the graded answers to one prompt. Whatever a rule remembers
between steps is in a state, a mapping of tensors whose shapes do not change, so that it is saved
with the model's. A rule never changes a state: `update` returns another. The state that `rewards`
gets is the one before the step, so a rule learns from a batch only after it was rewarded.

The docstrings of the rules share these symbols: c is whether an answer is correct (1 or 0), L its
length in tokens, p the accuracy of its group, and Lmax the limit (`Marks.limit`) unless a rule
says otherwise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from ..marks import Marks

State = Mapping[str, Tensor]


class Rule(ABC):
    """Abstract base of the reward rules, which are frozen dataclasses of their constants.

    name: of the rule in the shell. is_safe: whether no wrong answer ever gets more than a right one
    of its group, for all lengths from 1 to the limit, all states, and the default constants. A
    right and a wrong answer may get the same.
    """

    name: ClassVar[str]
    is_safe: ClassVar[bool]

    @abstractmethod
    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        """The reward of each answer of one group, all of them graded."""

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        """The state before the first step; none for most rules."""
        return {}

    def update(self, state: State, batch: Marks) -> dict[str, Tensor]:
        """The state after a step in which `batch` was sampled, all groups together."""
        return dict(state)


@dataclass(frozen=True)
class Sizes:
    """Of a run: prompts in the data set (groups are numbered below it), buckets of difficulty."""

    prompts: int = 1
    buckets: int = 1


def rewards(rule: Rule, batch: Marks, state: State) -> Float[Tensor, " texts"]:
    """The rewards of all answers by `rule`; NaN for those that are not graded."""
    result = torch.full_like(batch.correct, torch.nan)
    for rows, group in batch.groups():
        result[rows] = rule.rewards(group, state)
    return result


def check_range(rule: Rule, field: str, low: float, high: float, advice: str) -> None:
    """Raise UsageError unless the constant `field` of `rule` is from `low` to `high`; a constant
    whose default is a whole number must be one.
    """
    constant = getattr(rule, field)
    is_whole = isinstance(getattr(type(rule), field), int)
    if isinstance(constant, bool) or not isinstance(constant, int if is_whole else (int, float)):
        kind = "a whole number" if is_whole else "a number"
        raise UsageError(f"{rule.name}: {field}={constant!r} is not {kind}; {advice}")
    if not (math.isfinite(constant) and low <= constant <= high):
        bounds = [f"at least {low:g}"] * math.isfinite(low)
        bounds += [f"at most {high:g}"] * math.isfinite(high)
        needs = " and ".join(bounds) or "finite"
        raise UsageError(f"{rule.name}: {field}={constant} should be {needs}; {advice}")
