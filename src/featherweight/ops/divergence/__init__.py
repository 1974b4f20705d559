"""Divergences between next-token distributions, in float32: the definitions, one number a row of
logits, and `row_losses`, which computes them from hidden states and head weight in chunks of
positions.

    losses = row_losses(forward_kl, Projection(hidden, head.weight), Projection(teacher_hidden, w))
"""

from __future__ import annotations

from .chunked import CHUNK_BYTES, Projection, row_losses
from .reference import (
    TAIL_RULES,
    check_share,
    cross_entropy,
    forward_kl,
    jensen_shannon,
    kl,
    log_softmax,
    precise,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    top_k_kl,
    total_variation,
)

__all__ = [
    "CHUNK_BYTES",
    "TAIL_RULES",
    "Projection",
    "check_share",
    "cross_entropy",
    "forward_kl",
    "jensen_shannon",
    "kl",
    "log_softmax",
    "precise",
    "reverse_kl",
    "row_losses",
    "skew_kl",
    "skew_reverse_kl",
    "top_k_kl",
    "total_variation",
]
