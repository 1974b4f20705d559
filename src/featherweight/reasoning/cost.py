"""What an answer costs, in tokens: a weighted sum of axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..base.errors import UsageError

Ids = Sequence[int]


@dataclass(frozen=True)
class Cost:
    """Weights of the axes. thinking: tokens up to the end of the thought, its marker included;
    answer: those after it, with the end token; turns: of an agent; tool: tokens that tools wrote.
    Raises UsageError when a weight is negative or all are 0.
    """

    thinking: float = 1.0
    answer: float = 0.0
    turns: float = 0.0
    tool: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.thinking, self.answer, self.turns, self.tool)
        if min(weights) < 0 or max(weights) == 0:
            raise UsageError(f"the weights of a cost are at least 0, and one is above: {weights}")

    def __call__(self, counts: Mapping[str, Tensor]) -> Float[Tensor, " texts"]:
        """The cost of each answer. counts: by axis; an axis that is not there counts 0."""
        names = ("thinking", "answer", "turns", "tool")
        terms = [getattr(self, name) * counts[name].double() for name in names if name in counts]
        if not terms:
            raise UsageError(f"counts has none of {', '.join(names)}")
        return torch.stack(terms).sum(0)


def count_axes(answers: Sequence[Ids], think_end: Ids) -> dict[str, Tensor]:
    """Tokens of the thought and of the answer proper in each of `answers` (ids with end token).

    think_end: the ids that end a thought, such as those of "</think>"; a thought that never ends
    is the whole text. Tokens are counted by their ids, never by characters.
    """
    if not think_end:
        raise UsageError("think_end is empty; name the text that ends a thought")
    marker = list(think_end)
    thinking = []
    for ids in answers:
        places = (i for i in range(len(ids)) if list(ids[i : i + len(marker)]) == marker)
        start = next(places, None)
        thinking.append(len(ids) if start is None else start + len(marker))
    thought = torch.tensor(thinking, dtype=torch.float64)
    total = torch.tensor([len(ids) for ids in answers], dtype=torch.float64)
    return {"thinking": thought, "answer": total - thought}
