"""O1-Pruner: length and accuracy against the model before training (arXiv 2501.12570)."""

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
class O1Pruner(Rule):
    """r = clip(L_ref / L - 1 + accuracy_weight (c - A_ref), lowest, highest), L_ref and A_ref the
    mean length and accuracy of the answers of the model before training to this prompt.

    accuracy_weight: 2 in the paper, 5 in the authors' code. lowest, highest: the clip of their
    code, which then normalises over the whole data set, as an advantage does. Not safe: a short
    wrong answer gets up to `highest`. Raises UsageError when the references were not measured.
    """

    accuracy_weight: float = 2.0
    lowest: float = -2.0
    highest: float = 4.0
    name: ClassVar[str] = "o1_pruner"
    is_safe: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range(self, "accuracy_weight", 0, math.inf, "the authors have 2 or 5")
        check_range(self, "highest", -math.inf, math.inf, "the authors have 4")
        check_range(self, "lowest", -math.inf, self.highest, "the authors have -2")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        if bool((group.reference_length.isnan() | group.reference_accuracy.isnan()).any()):
            raise UsageError(
                "o1_pruner needs reference_length and reference_accuracy of each prompt; measure "
                "them on the model before training, or use hapo, which measures its own"
            )
        savings = group.reference_length / group.lengths.clamp(min=1) - 1
        gain = self.accuracy_weight * (group.correct - group.reference_accuracy)
        return (savings + gain).clamp(self.lowest, self.highest)
