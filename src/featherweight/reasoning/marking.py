"""From sampled texts to marks: what each answer cost, and whether it is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ..base.errors import UsageError
from ..data.tasks import Grader
from ..evaluation.repetition import is_loop
from ..models.sampling import Rollouts
from .cost import Cost, count_axes
from .marks import Marks
from .questions import Question


@dataclass(frozen=True)
class Marking:
    """How answers are marked.

    grader: grades a text; an answer whose grader fails or never ends has no mark. decode: ids to
    text, without the end token. think_end: ids that end a thought. limit: the longest answer; one
    that is cut there is wrong, whatever it says. cost: what counts as length.
    """

    grader: Grader
    decode: Callable[[Sequence[int]], str]
    think_end: tuple[int, ...]
    limit: int
    cost: Cost = field(default_factory=Cost)

    def __call__(self, texts: Rollouts, questions: Sequence[Question], step: int = 0) -> Marks:
        """The marks of `texts`, whose groups are numbered as `questions`."""
        answers = [texts.answer(index) for index in range(len(texts.finish))]
        # The end token belongs to the length, but not to the text.
        bodies = [
            ids[:-1] if finish == "end" else ids
            for ids, finish in zip(answers, texts.finish, strict=True)
        ]
        groups = texts.group.tolist()
        if max(groups, default=-1) >= len(questions):
            raise UsageError(f"group {max(groups)} of {len(questions)} questions")
        scores = []
        for body, finish, group in zip(bodies, texts.finish, groups, strict=True):
            if finish == "length":
                scores.append(0.0)
                continue
            score = self.grader(questions[group].example, self.decode(body)).score
            scores.append(float("nan") if score is None else score)
        return Marks(
            torch.tensor(scores, dtype=torch.float64),
            self.cost(count_axes(answers, self.think_end)),
            torch.tensor(groups),
            self.limit,
            bucket=torch.tensor([questions[group].bucket for group in groups]),
            is_cut=torch.tensor([finish == "length" for finish in texts.finish]),
            mean_logprob=(texts.logprobs.sum(1) / texts.lengths.clamp(min=1)).double().cpu(),
            repeats=torch.tensor([is_loop(ids) for ids in bodies]),
            step=step,
        )
