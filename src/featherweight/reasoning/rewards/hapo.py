"""History-aware policy optimisation, HAPO: shorter than the shortest right answer to the same
prompt so far (arXiv 2505.11225).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from ..marks import Marks
from .base import Rule, Sizes, State, check_range


@dataclass(frozen=True)
class HAPO(Rule):
    """savings = cos(min(pi/2 L / h, pi)), h the length of the shortest right answer to this prompt
    so far; a right answer gets c + weight max(floor, savings), a wrong one weight min(0, savings),
    and both plain c before the prompt has its first right answer.

    weight, floor: the authors' code's. Safe, since a right answer keeps at least 0.3. The state is
    shortest [prompts] in tokens, infinite at the start. Raises UsageError for a prompt whose number
    is not below the number of prompts.
    """

    weight: float = 1.0
    floor: float = -0.7
    name: ClassVar[str] = "hapo"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "weight", 0, 1, "the authors have 1; above it is not safe")
        check_range(self, "floor", -1, 0, "the authors have -0.7")

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        return {"shortest": torch.full((sizes.prompts,), torch.inf, dtype=torch.float64)}

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        _check_prompts(group, state)
        shortest = state["shortest"][group.group[0]]
        if bool(shortest.isinf()):
            return group.correct
        savings = torch.cos((math.pi / 2 * group.lengths / shortest).clamp(max=math.pi))
        bonus = torch.where(group.is_correct, savings.clamp(min=self.floor), savings.clamp(max=0))
        return group.correct + self.weight * bonus

    def update(self, state: State, batch: Marks) -> dict[str, Tensor]:
        _check_prompts(batch, state)
        right = batch.select(batch.is_correct)
        lengths = right.lengths.clamp(min=1)  # an answer without thinking may have no tokens
        return {"shortest": state["shortest"].scatter_reduce(0, right.group, lengths, "amin")}


def _check_prompts(batch: Marks, state: State) -> None:
    num_prompts = len(state["shortest"])
    if bool(((batch.group < 0) | (batch.group >= num_prompts)).any()):
        raise UsageError(
            f"hapo remembers {num_prompts} prompts, but a group has a number outside 0 to "
            f"{num_prompts - 1}; start it with the number of prompts of the data set"
        )
