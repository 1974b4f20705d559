"""What a model answered at the positions of one window, as it is read from disk."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .draws import log_frequencies


@dataclass(frozen=True, eq=False)
class FullAnswer:
    """The logits themselves, so that every temperature can be computed from them."""

    tokens: Int[Tensor, " length_plus_1"]
    logits: Float[Tensor, "length vocabulary"]


@dataclass(frozen=True, eq=False)
class SparseAnswer:
    """Some tokens of each distribution, and the mass of all others.

    tokens: the window; position i answers for the successor of tokens[i]. ids: distinct where
    `log_p` is finite; the most likely token is first. log_p: their log-probabilities at the
    temperature of the header; with `log_tail`, the logarithm of the remaining mass, they add up to
    1. -inf marks an unused place. log_target: the log-probability of tokens[i + 1], which may not
    be among `ids`. drawn: tokens drawn from the remaining mass, sorted, where there are any.
    """

    tokens: Int[Tensor, " length_plus_1"]
    ids: Int[Tensor, "length k"]
    log_p: Float[Tensor, "length k"]
    log_tail: Float[Tensor, " length"]
    log_target: Float[Tensor, " length"]
    drawn: Int[Tensor, "length draws"] | None = None

    def with_tail_on_draws(self) -> SparseAnswer:
        """The same answer with the remaining mass divided equally among the drawn tokens: it is
        the whole distribution in expectation. Without draws, the answer itself.
        """
        if self.drawn is None:
            return self
        log_p = torch.cat([self.log_p, self.log_tail[:, None] + log_frequencies(self.drawn)], -1)
        ids = torch.cat([self.ids, self.drawn], -1)
        nothing = torch.full_like(self.log_tail, -math.inf)
        return replace(self, ids=ids, log_p=log_p, log_tail=nothing, drawn=None)
