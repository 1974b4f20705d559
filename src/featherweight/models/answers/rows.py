"""What a model answered at the positions of one window, as it is read from disk."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


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
    be among `ids`.
    """

    tokens: Int[Tensor, " length_plus_1"]
    ids: Int[Tensor, "length k"]
    log_p: Float[Tensor, "length k"]
    log_tail: Float[Tensor, " length"]
    log_target: Float[Tensor, " length"]
