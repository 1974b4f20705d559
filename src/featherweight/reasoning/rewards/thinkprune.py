"""ThinkPrune: a limit that falls in stages (arXiv 2504.01296)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from ..marks import Marks
from .base import Rule, State, check_range


@dataclass(frozen=True)
class ThinkPrune(Rule):
    """r = c 1[L <= target], the target falling from one of `targets` to the next every
    `stage_steps` steps; the last one stays.

    targets: tokens. stage_steps: the authors go on from step 180 of their first stage. A right
    answer that is too long gets 0 like a wrong one, never less.
    """

    targets: tuple[int, ...] = (4000, 3000, 2000)
    stage_steps: int = 180
    name: ClassVar[str] = "thinkprune"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "stage_steps", 1, math.inf, "the authors have 180")
        is_falling = sorted(self.targets, reverse=True) == list(self.targets)
        if not self.targets or not is_falling or min(self.targets) < 1:
            raise UsageError(
                f"thinkprune: targets={self.targets} should be lengths that fall; the paper has "
                "(4000, 3000, 2000)"
            )

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        stage = min(group.step // self.stage_steps, len(self.targets) - 1)
        return group.correct * (group.lengths <= self.targets[stage])
