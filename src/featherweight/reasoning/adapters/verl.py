"""verl: `compute_score` grades one answer, and `ShortARCEstimator` gives the advantages of a batch.

    # my_module.py, imported by verl in each of its processes: VERL_USE_EXTERNAL_MODULES=my_module
    ShortARCEstimator(ShortARC(), limit=4096).register()       # algorithm.adv_estimator=short_arc

verl hands an estimator the mask of the answer, but neither its ids nor the place where a thought
ends. Length is therefore that of the whole answer, which is a difference to our own loop and to the
adapter of TRL: with short answers proper it does not matter. What the control learned is in
`estimator.state`; verl computes the advantages of a whole batch in one process, so nothing is
gathered. The state is not in verl's checkpoints: save `estimator.state.state_dict()` yourself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from ..advantages import Control
from ..control_state import ControlState
from ..marks import Marks
from ..rewards import Sizes

NAME = "short_arc"
UNGRADED_SCORE = -1.0  # stands for None in a reward, which is a number in verl
Score = Callable[[str, str, str, Mapping[str, Any] | None], dict[str, float]]


def make_compute_score(
    grade: Callable[[Mapping[str, Any], str], float | None],
) -> Score:
    """verl's `compute_score(data_source, solution_str, ground_truth, extra_info)` from a grader.

    grade: called with `extra_info`, with `ground_truth` and `data_source` added, and the answer.
    `score` is its grade, from 0 to 1, or -1 for an answer that it cannot grade, which
    `ShortARCEstimator` leaves out; `acc` is the grade, 0 for such an answer.
    """

    def compute_score(
        data_source: str,
        solution_str: str,
        ground_truth: str,
        extra_info: Mapping[str, Any] | None = None,
    ) -> dict[str, float]:
        example = {**(extra_info or {}), "ground_truth": ground_truth, "data_source": data_source}
        score = grade(example, solution_str)
        if score is None:
            return {"score": UNGRADED_SCORE, "acc": 0.0}
        return {"score": float(score), "acc": float(score)}

    return compute_score


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """`custom_reward_function.name=compute_score`: right when the text after the last "</think>"
    contains exactly the ground truth, spaces aside.
    """
    thought, marker, answer = solution_str.rpartition("</think>")
    is_right = bool(marker) and "</think>" not in thought and answer.strip() == ground_truth.strip()
    return {"score": float(is_right), "acc": float(is_right)}


class ShortARCEstimator:
    """An advantage estimator of verl with the state of a control.

    control: `ShortARC()` or another. limit: `data.max_response_length`; an answer of that length
    counts as cut, thus wrong, since the mask does not tell what its last token is. sizes: for
    controls with buckets, together with `bucket`, which gives the bucket of a prompt from its entry
    of `index`. facts: figures of the last step.
    """

    __name__ = NAME

    def __init__(
        self,
        control: Control,
        limit: int,
        sizes: Sizes | None = None,
        bucket: Callable[[Any], int] = lambda number: 0,
    ) -> None:
        if limit < 1:
            raise UsageError(f"limit={limit}: the longest answer has at least 1 token")
        self.state = ControlState(control, sizes or Sizes())
        self.limit, self.bucket = limit, bucket
        self.step = 0
        self.facts: dict[str, float] = {}

    def __call__(
        self,
        token_level_rewards: Float[Tensor, "texts length"],
        response_mask: Tensor,
        index: Iterable[Any] | None = None,
        config: Any = None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "texts length"], Float[Tensor, "texts length"]]:
        """(advantages, returns), both the advantage of the answer at each of its tokens, 0 beside
        them. index: the prompt of each answer (`uid`). verl passes further arguments, which are
        not needed. Raises UsageError without index, and for groups of one answer.
        """
        if index is None:
            raise UsageError("verl gave no uid, so nobody knows which answers share a prompt")
        marks = self._marks(token_level_rewards, response_mask, list(index))
        advantages = self.state.take(marks)
        self.step += 1
        self.facts = advantages.facts
        numbers = advantages.numbers.to(token_level_rewards)[:, None] * response_mask
        return numbers, numbers.clone()

    def _marks(self, rewards: Tensor, mask: Tensor, index: list[Any]) -> Marks:
        numbers = {name: number for number, name in enumerate(dict.fromkeys(index))}
        if len(numbers) == len(index):
            raise UsageError(
                "each prompt has one answer, and an advantage compares several; set "
                "actor_rollout_ref.rollout.n to at least 2"
            )
        lengths = mask.sum(-1).double().cpu()
        is_cut = lengths >= self.limit
        scores = rewards.double().sum(-1).cpu()
        scores = torch.where(scores == UNGRADED_SCORE, torch.nan, scores)
        extremes = scores[(scores < 0) | (scores > 1)]
        if len(extremes):
            raise UsageError(
                f"a reward is {float(extremes[0]):g}, and correctness is from 0 to 1, or "
                f"{UNGRADED_SCORE:g} for an ungraded answer; leave out other rewards and the KL "
                "(algorithm.use_kl_in_reward)"
            )
        return Marks(
            torch.where(is_cut, 0.0, scores),
            lengths,
            torch.tensor([numbers[name] for name in index]),
            self.limit,
            bucket=torch.tensor([self.bucket(name) for name in index]),
            is_cut=is_cut,
            step=self.step,
        )

    def register(self) -> None:
        """Make it verl's estimator "short_arc". Raises UsageError without verl."""
        try:
            from verl.trainer.ppo.core_algos import register_adv_est
        except ImportError as error:
            raise UsageError("verl cannot be imported; run: pip install verl") from error
        register_adv_est(NAME)(self)
