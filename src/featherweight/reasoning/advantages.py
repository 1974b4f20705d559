"""From graded answers to advantages: how much more, or less, probable an answer shall become.

control = RewardControl(Accuracy(), scale="none")      # Dr. GRPO
advantages, facts = control.advantages(marks, control.start(sizes))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..base.errors import BadInput, UsageError
from .marks import Marks
from .rewards import Accuracy, Rule, Sizes, State, rewards

Scale = Literal["group", "batch", "none"]
SCALES = ("group", "batch", "none")
STD_FLOOR = 1e-4  # is added to a standard deviation, as in GRPO


@dataclass(frozen=True, eq=False)
class Advantages:
    """numbers: an advantage for each answer, 0 for one that is not graded. counts: the answers that
    take part in the loss. facts: figures for the report.
    """

    numbers: Float[Tensor, " texts"]
    counts: Bool[Tensor, " texts"]
    facts: dict[str, float] = field(default_factory=dict)


class Control(ABC):
    """Abstract base of what decides about advantages. Its constants are in a frozen dataclass, and
    what it learns during a run in a state of tensors of fixed shapes.
    """

    @abstractmethod
    def advantages(self, marks: Marks, state: State) -> Advantages:
        """The advantages of one step's answers."""

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        """The state before the first step."""
        return {}

    def update(self, state: State, marks: Marks) -> dict[str, Tensor]:
        """The state after a step in which `marks` was sampled."""
        return dict(state)


@dataclass(frozen=True)
class RuleControl(Control):
    """Abstract base of the controls that make advantages of a rule's rewards. Raises BadInput for a
    reward that is not finite.
    """

    rule: Rule = field(default_factory=Accuracy)

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        return self.rule.start(sizes)

    def update(self, state: State, marks: Marks) -> dict[str, Tensor]:
        return self.rule.update(state, marks)

    def rewards(self, marks: Marks, state: State) -> Float[Tensor, " texts"]:
        """The rule's; NaN for answers without mark."""
        reward = rewards(self.rule, marks, state)
        if not bool(reward[marks.has_mark].isfinite().all()):
            raise BadInput(
                f"{self.rule!r} gave an answer a reward that is not finite; does it need something "
                "that the questions do not have, such as a budget or a reference length?"
            )
        return reward


@dataclass(frozen=True)
class RewardControl(RuleControl):
    """A = r - mean of the group, divided by a standard deviation: GRPO and what followed it.

    rule: gives r. scale: "group" divides by the standard deviation of the group (GRPO,
    arXiv:2402.03300), under which a group of right answers with tiny differences in length gets
    advantages of size 1; "batch" by that of all rewards; "none" by nothing (Dr. GRPO). drop: leave
    out groups in which all advantages are 0 (the dynamic sampling of DAPO, which keeps a group of
    right answers as long as its lengths make a difference).
    """

    scale: Scale = "none"
    drop: bool = False

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise UsageError(f"scale={self.scale!r}: choose {', '.join(SCALES)}")

    def advantages(self, marks: Marks, state: State) -> Advantages:
        reward = self.rewards(marks, state)
        numbers = center(reward, marks, self.scale == "group")
        if self.scale == "batch":
            numbers = numbers / (deviation(reward[marks.has_mark]) + STD_FLOOR)
        counts = useful(numbers, marks) if self.drop else marks.has_mark
        return Advantages(numbers, counts, {"reward": float(reward.nanmean())})


def center(
    reward: Float[Tensor, " texts"], marks: Marks, is_scaled: bool = False
) -> Float[Tensor, " texts"]:
    """r - the mean of the group, over its standard deviation when `is_scaled`; 0 where r is not."""
    result = torch.zeros_like(reward)
    for rows, _ in marks.groups():
        if bool((reward[rows] == reward[rows][0]).all()):
            continue  # the mean of equal numbers is rounded, and no difference is left
        difference = reward[rows] - reward[rows].mean()
        result[rows] = difference / (deviation(reward[rows]) + STD_FLOOR if is_scaled else 1)
    return result


def deviation(numbers: Float[Tensor, " texts"]) -> Tensor:
    """The sample standard deviation; 0 for fewer than two numbers."""
    return numbers.std() if len(numbers) > 1 else numbers.new_zeros(())


def useful(numbers: Float[Tensor, " texts"], marks: Marks) -> Bool[Tensor, " texts"]:
    """The graded answers of the groups in which some advantage is not 0."""
    counts = torch.zeros_like(marks.has_mark)
    for rows, _ in marks.groups():
        counts[rows] = bool((numbers[rows] != 0).any())
    return counts
