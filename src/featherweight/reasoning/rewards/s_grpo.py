"""S-GRPO: a reward that halves with every earlier right exit (arXiv 2505.07686)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State


@dataclass(frozen=True)
class SGRPO(Rule):
    """r = c 2^-n, n the right answers of the group that are shorter.

    The paper's group is one trace that is left at 8 places, each followed by an answer; their order
    is that of their lengths, so the rule also reads a group of separate answers. Answers of one
    length get the same.
    """

    name: ClassVar[str] = "s_grpo"
    is_safe: ClassVar[bool] = True

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        right_lengths = group.lengths[group.is_correct]
        num_shorter = (right_lengths[None] < group.lengths[:, None]).sum(1)
        return group.correct * 0.5**num_shorter
