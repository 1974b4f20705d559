"""What a reward rule is: a pure function from graded answers to numbers.

A rule sees one group at a time, that is the graded answers to one prompt. Whatever a rule remembers
between steps is in a state, a mapping of tensors whose shapes do not change, so that it is saved
with the model's. A rule never changes a state: `update` returns another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..marks import Marks

State = Mapping[str, Tensor]


class Rule(ABC):
    """Abstract base of the reward rules, which are frozen dataclasses of their constants.

    is_safe: whether no wrong answer ever gets more than a right one of its group, for all lengths
    from 1 to the limit, all states, and the default constants.
    """

    is_safe: ClassVar[bool]

    @abstractmethod
    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        """The reward of each answer of one group, all of them marks."""

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        """The state before the first step; none for most rules."""
        return {}

    def update(self, state: State, marks: Marks) -> dict[str, Tensor]:
        """The state after a step in which `marks` was sampled, all groups together."""
        return dict(state)


@dataclass(frozen=True)
class Sizes:
    """Of a run: prompts in the data set (groups are numbered below it), buckets of difficulty."""

    prompts: int = 1
    buckets: int = 1


def rewards(rule: Rule, marks: Marks, state: State) -> Float[Tensor, " texts"]:
    """The rewards of all answers by `rule`; NaN for those that are not marks."""
    result = torch.full_like(marks.correct, torch.nan)
    for rows, group in marks.groups():
        result[rows] = rule.rewards(group, state)
    return result
