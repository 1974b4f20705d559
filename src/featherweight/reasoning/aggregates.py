"""How the terms of tokens become one number: over what a mean is taken.

An aggregate returns a sum and a weight; the training loop divides the sums of all micro-batches and
ranks by all weights. So the result does not depend on how a batch is divided, `LocalTokenMean`
excepted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..base.errors import UsageError


class Aggregate(ABC):
    """Abstract base."""

    @abstractmethod
    def __call__(
        self, terms: Float[Tensor, " tokens"], text: Int64[Tensor, " tokens"]
    ) -> tuple[Tensor, Tensor | float]:
        """Sum and weight. text: the answer that a token belongs to; the numbers of the answers
        that count are those that occur.
        """


@dataclass(frozen=True)
class PerText(Aggregate):
    """1/G sum_i 1/L_i sum_t: GRPO. A token of a short answer weighs more, so right answers become
    shorter and wrong ones longer by themselves.
    """

    def __call__(
        self, terms: Float[Tensor, " tokens"], text: Int64[Tensor, " tokens"]
    ) -> tuple[Tensor, Tensor | float]:
        counts = torch.bincount(text).clamp(min=1)
        return (terms / counts[text]).sum(), _num_texts(text)


@dataclass(frozen=True)
class PerTextSum(Aggregate):
    """1/G sum_i sum_t / limit: Dr. GRPO (arXiv:2503.20783). The divisor is a constant, so a token
    weighs the same in every answer. limit: the longest answer, in tokens.
    """

    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise UsageError(f"limit={self.limit}: the longest answer, in tokens")

    def __call__(
        self, terms: Float[Tensor, " tokens"], text: Int64[Tensor, " tokens"]
    ) -> tuple[Tensor, Tensor | float]:
        return terms.sum() / self.limit, _num_texts(text)


@dataclass(frozen=True)
class TokenMean(Aggregate):
    """The mean over the tokens of the whole optimizer batch: DAPO (arXiv:2503.14476)."""

    def __call__(
        self, terms: Float[Tensor, " tokens"], text: Int64[Tensor, " tokens"]
    ) -> tuple[Tensor, Tensor | float]:
        return terms.sum(), float(len(terms))


@dataclass(frozen=True)
class LocalTokenMean(Aggregate):
    """The mean over the tokens of the micro-batch: BNPO. It depends on how the batch is divided, by
    definition; use it to reproduce others only.
    """

    def __call__(
        self, terms: Float[Tensor, " tokens"], text: Int64[Tensor, " tokens"]
    ) -> tuple[Tensor, Tensor | float]:
        return terms.sum() / max(len(terms), 1), float(len(terms) > 0)


def _num_texts(text: Int64[Tensor, " tokens"]) -> float:
    return float((torch.bincount(text) > 0).sum())
