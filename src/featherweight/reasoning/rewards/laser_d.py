"""LASER-D and LASER-DE: the target length follows the model and the difficulty of the question
(arXiv 2505.15612).

The accuracy of a group puts it into a tier: hard below 1/3, medium below 2/3, else easy. A tier's
target is the shortest candidate length at which at least one right answer is expected, that is
floor(coverage n) >= 1: coverage is the share of the tier's answers within that length, n the right
answers that a group of G has at least, 1, floor(G/3) and floor(2G/3). That is how the authors' code
counts: coverage is over all answers, wrong ones too.

The authors measure coverage on 500 further questions every 20 steps. Here it is measured on the
answers of the training steps since the last time, and a tier without answers keeps its target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..marks import Marks
from .base import Rule, Sizes, State, check_range
from .laser import verdict

NUM_TIERS = 3
NUM_CANDIDATES = 16  # lengths that may be targets: sixteenths of the limit


@dataclass(frozen=True)
class DynamicTarget(Rule):
    """Abstract base of the two rules; the subclasses have no constants of their own.

    bonus: reward. shortest: the least target in sixteenths of the limit; 4 is LASER-D-4096, whose
    limit is 16384. interval: steps between two measurements, the first after the first step. Until
    then every length is within the target.

    The state is targets [tiers] in tokens, and since the last measurement coverage [tiers,
    candidates] answers within a candidate length, and answers [tiers].
    """

    bonus: float = 0.5
    shortest: int = 4
    interval: int = 20

    def __post_init__(self) -> None:
        check_range(self, "bonus", 0, math.inf, "the paper has 0.5")
        check_range(self, "shortest", 1, NUM_CANDIDATES, "the paper has 1, 2 or 4 sixteenths")
        check_range(self, "interval", 1, math.inf, "the paper has 20 steps")

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        return {
            "targets": torch.full((NUM_TIERS,), torch.inf, dtype=torch.float64),
            "coverage": torch.zeros((NUM_TIERS, NUM_CANDIDATES), dtype=torch.int64),
            "answers": torch.zeros(NUM_TIERS, dtype=torch.int64),
        }

    def update(self, state: State, batch: Marks) -> dict[str, Tensor]:
        coverage, answers = state["coverage"].clone(), state["answers"].clone()
        sixteenths = torch.arange(1, NUM_CANDIDATES + 1, dtype=torch.float64)
        candidates = batch.limit * sixteenths / NUM_CANDIDATES
        group_sizes = []
        for _, group in batch.groups():
            tier = _tier(group)
            coverage[tier] += (group.lengths[:, None] <= candidates).sum(0)
            answers[tier] += len(group)
            group_sizes.append(len(group))
        if not group_sizes or batch.step % self.interval:
            return {"targets": state["targets"], "coverage": coverage, "answers": answers}
        group_size = sum(group_sizes) // len(group_sizes)
        targets = self._targets(coverage, answers, candidates, group_size)
        return {
            "targets": torch.where(answers > 0, targets, state["targets"]),
            "coverage": torch.zeros_like(coverage),
            "answers": torch.zeros_like(answers),
        }

    def _targets(
        self,
        coverage: Int64[Tensor, "tiers candidates"],
        answers: Int64[Tensor, " tiers"],
        candidates: Float[Tensor, " candidates"],
        group_size: int,
    ) -> Float[Tensor, " tiers"]:
        """The shortest candidate with an expected right answer, else the limit."""
        least_right = torch.tensor([1, group_size // 3, 2 * group_size // 3])
        is_enough = coverage * least_right[:, None] >= answers[:, None]
        is_enough[:, : self.shortest - 1] = False
        no_target = torch.full_like(candidates, torch.inf)
        return torch.where(is_enough, candidates, no_target).amin(1).clamp(max=candidates[-1])


class LaserD(DynamicTarget):
    """r = R + bonus 1[right and L <= target of the tier], R = 1 right, -0.5 wrong, -1 cut."""

    name: ClassVar[str] = "laser_d"
    is_safe: ClassVar[bool] = True

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        is_short = group.is_correct & _is_within(group, state)
        return verdict(group) + self.bonus * is_short.double()


class LaserDE(DynamicTarget):
    """LASER-D which also gives the bonus to a wrong answer that is longer than the target, ends and
    does not repeat itself, so that the model explores where it fails. Safe up to a bonus of 1.5.
    """

    name: ClassVar[str] = "laser_de"
    is_safe: ClassVar[bool] = True

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        is_within = _is_within(group, state)
        explores = ~group.is_correct & ~group.is_cut & ~group.repeats & ~is_within
        is_paid = (group.is_correct & is_within) | explores
        return verdict(group) + self.bonus * is_paid.double()


def _tier(group: Marks) -> int:
    """0 hard, 1 medium, 2 easy; thirds of whole numbers, since 1/3 is not exact."""
    num_right, num_answers = int(group.is_correct.sum()), len(group)
    return int(3 * num_right >= num_answers) + int(3 * num_right >= 2 * num_answers)


def _is_within(group: Marks, state: State) -> Bool[Tensor, " texts"]:
    return group.lengths <= state["targets"][_tier(group)]
