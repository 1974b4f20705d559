"""DAPO's soft punishment of overlong answers (arXiv 2503.14476, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State, check_range


@dataclass(frozen=True)
class DAPOOverlong(Rule):
    """r = 2c - 1 + clip((Lmax - C - L) / C, -1, 0): the last C tokens before the limit cost up to
    1.

    cache: C as a share of the limit; the paper has 4096 of 20480 tokens. Safe: the longest right
    answer gets 0, the best wrong one -1.
    """

    cache: float = 0.2
    name: ClassVar[str] = "dapo_overlong"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "cache", 1e-3, 1, "the paper has 0.2 of the limit")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        cache = self.cache * group.limit
        punishment = ((group.limit - cache - group.lengths) / cache).clamp(-1, 0)
        return 2 * group.correct - 1 + punishment
