"""A rule, or `ShortARC` in its scalar form, as one number an answer, with what it remembers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...base.errors import BadInput, UsageError
from ..marks import Marks
from ..rewards import Rule, Sizes, rewards
from ..short_arc import ShortARC


class ScalarReward:
    """`take(marks)` gives the rewards of a step with the state that the steps before left behind,
    and then takes the step into the state.

    rule: a reward rule or `ShortARC(form="scalar")`. sizes: of the data set, for rules that
    remember prompts or buckets. Raises UsageError for the decoupled form, which one number an
    answer cannot express.
    """

    def __init__(self, rule: Rule | ShortARC, sizes: Sizes) -> None:
        if isinstance(rule, ShortARC) and rule.form != "scalar":
            raise UsageError(
                'a reward is one number an answer, which needs ShortARC(form="scalar"); the '
                "decoupled form needs a trainer that takes advantages"
            )
        self.rule = rule
        self.state = rule.start(sizes)
        self.step = 0

    def numbers(self, marks: Marks) -> Tensor:
        """The rewards of `marks`; NaN for those without a mark. The state does not change."""
        if isinstance(self.rule, ShortARC):
            return self.rule.rewards(marks, self.state)
        return rewards(self.rule, marks, self.state)

    def take(self, marks: Marks) -> Tensor:
        """The rewards of all answers of a step, and the next state."""
        numbers = self.numbers(marks)
        self.state = self.rule.update(self.state, marks)
        self.step += 1
        return numbers

    def state_dict(self) -> dict[str, Tensor]:
        """The state and the number of steps, for a checkpoint."""
        return {**self.state, "num_steps": torch.tensor(self.step)}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave. Raises BadInput for another rule's state."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        other_shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != other_shapes:
            raise BadInput(f"the saved state has {other_shapes}, this rule {shapes}")
        self.state = {name: tensors[name] for name in self.state}
        self.step = int(tensors["num_steps"])
