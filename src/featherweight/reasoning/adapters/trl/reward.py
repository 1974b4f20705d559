"""`LengthReward`: a length rule as a reward function of TRL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ....base.errors import UsageError
from ....training import ranks
from ...rewards import Rule, Sizes
from ...short_arc import ShortARC
from ..answers import AnswerFormat, Grade, grades, plain_text
from ..scalar import ScalarReward
from .rows import GATHERS, Columns, Gather, gather_rows, number_groups, read_rows


class LengthReward:
    """One number an answer, of its correctness, its length and its group.

    Give it to `GRPOTrainer(reward_funcs=[...])` together with `scale_rewards="none"`: the trainer's
    default divides by the deviation of the group, under which the smallest difference in length
    gets an advantage of size 1. With another reward function beside it, leave correctness to this
    one.

    Args: rule, a reward rule or `ShortARC(form="scalar")`; grade, called with the columns of a row
    and the text of its answer, from 0 to 1, or None for an answer that cannot be graded, which then
    takes no part; answer_format; num_generations, as in the trainer's settings (TRL does not pass
    it on); gather: "auto" takes the rows of all processes
    together, "never" those of each alone, which is refused for a rule that learns; columns and
    sizes, for rules that remember prompts or buckets.

    The object can be pickled when `grade` can. What the rule learned is in `state_dict`;
    `checkpoint_callback` saves it. TRL calls reward functions in evaluation too: there the reward
    is plain correctness, and the rule learns nothing. Raises UsageError, before rewards are given,
    for rows that are not `num_generations` consecutive answers to each prompt.
    """

    def __init__(
        self,
        rule: Rule | ShortARC,
        grade: Grade,
        answer_format: AnswerFormat,
        num_generations: int,
        gather: Gather = "auto",
        columns: Columns | None = None,
        sizes: Sizes | None = None,
    ) -> None:
        if num_generations < 2:
            raise UsageError(f"num_generations={num_generations}: a group has at least 2 answers")
        if gather not in GATHERS:
            raise UsageError(f"gather={gather!r}: choose {', '.join(GATHERS)}")
        self.scalar = ScalarReward(rule, sizes or Sizes())
        self.grade, self.answer_format = grade, answer_format
        self.num_generations, self.gather = num_generations, gather
        self.columns = columns or Columns()
        self.__name__ = "length_reward"  # TRL names its figures after it

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        trainer_state: Any = None,
        log_metric: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        """The reward of each row of this process; None for an answer without a grade."""
        texts = [plain_text(completion) for completion in completions]
        examples = rows_of(columns, len(prompts))
        correct = grades(self.grade, examples, texts)
        rows = read_rows(
            prompts, completion_ids, correct, columns, self.columns, self.answer_format
        )
        # Steps of the optimizer, as in our own loop; a generation may serve several.
        step = self.scalar.step if trainer_state is None else int(trainer_state.global_step)
        if is_evaluation(log_metric):
            plain_rows = rows | {"group": [0] * len(prompts)}
            numbers = self.answer_format.marks(plain_rows, step).correct
        else:
            numbers = self._take(rows, step, log_metric)
        return [None if number != number else number for number in numbers.tolist()]

    def _take(self, rows: dict[str, list[Any]], step: int, log_metric: Any) -> Tensor:
        """The rewards of this process's rows, after which the rule learned from those of all."""
        self._check_gather()
        all_rows, own_rows = gather_rows(rows, self.gather)
        marks = self.answer_format.marks(number_groups(all_rows, self.num_generations), step)
        numbers = self.scalar.take(marks)
        if log_metric is not None:
            log_metric("accuracy", float(marks.correct.nanmean()))
            log_metric("ungraded", float((~marks.has_mark).double().mean()))
        return numbers[own_rows]

    def state_dict(self) -> dict[str, Tensor]:
        """What the rule learned, and the number of steps."""
        return self.scalar.state_dict()

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave. Raises BadInput for another rule's state."""
        self.scalar.load_state_dict(tensors)

    def _check_gather(self) -> None:
        if self.gather == "never" and ranks.num_ranks() > 1 and self.scalar.state:
            raise UsageError(
                f'gather="never" lets each of {ranks.num_ranks()} processes learn something else; '
                'take gather="auto"'
            )


def is_evaluation(log_metric: Any) -> bool:
    """Whether the trainer evaluates. TRL does not tell a reward function, so the trainer is asked
    whose method `log_metric` is; a function of another origin means training.
    """
    model = getattr(getattr(log_metric, "__self__", None), "model", None)
    return model is not None and not model.training


def rows_of(columns: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The columns that have an entry for each of `count` rows, as one mapping a row."""
    lists = {
        name: column
        for name, column in columns.items()
        if isinstance(column, list) and len(column) == count
    }
    return [{name: column[row] for name, column in lists.items()} for row in range(count)]
