"""What was sampled and how it was graded: the input of rewards and controllers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..base.errors import UsageError


@dataclass(frozen=True)
class Marks:
    """Answers to several prompts, one entry an answer, in any order.

    correct: from 0 to 1, NaN for an answer that could not be graded. An answer that was cut at the
    limit is wrong. lengths: the cost of an answer, in tokens; which tokens count is said by
    `Cost`. group: the prompt that an answer belongs to, a number of its own in the whole run.
    bucket: the difficulty of the prompt, from 0. limit: the longest answer that was allowed.
    is_cut: whether an answer was cut at the limit. repeats: whether an answer repeats itself.
    budget: the length that the prompt asked for, NaN where it asked for none. reference_length,
    reference_accuracy: of the answers of the model before training, NaN where they were not
    measured. mean_logprob: of the tokens of an answer, NaN where unknown. step: of the training,
    from 0.
    """

    correct: Float[Tensor, " texts"]
    lengths: Float[Tensor, " texts"]
    group: Int64[Tensor, " texts"]
    limit: int
    bucket: Int64[Tensor, " texts"] = field(default=None)  # type: ignore[assignment]
    is_cut: Bool[Tensor, " texts"] = field(default=None)  # type: ignore[assignment]
    repeats: Bool[Tensor, " texts"] = field(default=None)  # type: ignore[assignment]
    budget: Float[Tensor, " texts"] = field(default=None)  # type: ignore[assignment]
    reference_length: Float[Tensor, " texts"] = field(default=None)  # type: ignore[assignment]
    reference_accuracy: Float[Tensor, " texts"] = field(default=None)  # type: ignore[assignment]
    mean_logprob: Float[Tensor, " texts"] = field(default=None)  # type: ignore[assignment]
    step: int = 0

    def __post_init__(self) -> None:
        count = len(self.correct)
        device = self.correct.device
        unknown = torch.full((count,), torch.nan, dtype=torch.float64, device=device)
        defaults = {
            "bucket": torch.zeros(count, dtype=torch.int64, device=device),
            "is_cut": torch.zeros(count, dtype=torch.bool, device=device),
            "repeats": torch.zeros(count, dtype=torch.bool, device=device),
            "budget": unknown,
            "reference_length": unknown,
            "reference_accuracy": unknown,
            "mean_logprob": unknown,
        }
        for name, default in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name in ("correct", "lengths"):
            object.__setattr__(self, name, getattr(self, name).double())
        for name in TENSORS:
            if getattr(self, name).shape != (count,):
                shape = tuple(getattr(self, name).shape)
                raise UsageError(f"{name} has shape {shape}, there are {count} answers")
        scores = self.correct[self.has_mark]
        if bool(((scores < 0) | (scores > 1)).any()):
            raise UsageError("correct should be between 0 and 1, or NaN for an ungraded answer")
        if bool((self.correct[self.is_cut] > 0).any()):
            raise UsageError("an answer that was cut at the limit counts as wrong")

    def __len__(self) -> int:
        return len(self.correct)

    @property
    def has_mark(self) -> Bool[Tensor, " texts"]:
        """False for the answers that take no part in rewards and statistics."""
        return ~self.correct.isnan()

    @property
    def is_correct(self) -> Bool[Tensor, " texts"]:
        """Whether an answer counts as right: more than half correct; False for one without mark."""
        return self.correct > 0.5

    def select(self, rows: Tensor) -> Marks:
        """The answers of `rows` (indices or a mask)."""
        return replace(self, **{name: getattr(self, name)[rows] for name in TENSORS})

    def groups(self) -> Iterator[tuple[Int64[Tensor, " rows"], Marks]]:
        """For each group the rows of its graded answers, and these; no group is empty."""
        rows = torch.arange(len(self), device=self.group.device)
        for number in self.group.unique().tolist():
            places = rows[(self.group == number) & self.has_mark]
            if len(places):
                yield places, self.select(places)


TENSORS = (
    "correct",
    "lengths",
    "group",
    "bucket",
    "is_cut",
    "repeats",
    "budget",
    "reference_length",
    "reference_accuracy",
    "mean_logprob",
)
