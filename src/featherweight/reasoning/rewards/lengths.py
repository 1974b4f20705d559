"""Where a length lies among others of its group."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def position(
    lengths: Float[Tensor, " texts"], members: Bool[Tensor, " texts"]
) -> Float[Tensor, " texts"]:
    """(L - low) / (high - low) over the lengths of `members`: 0 for the shortest of them, 1 for
    the longest, and 0 for all when they are equally long or there are none.
    """
    if not bool(members.any()):
        return torch.zeros_like(lengths)
    low, high = lengths[members].aminmax()
    if low == high:
        return torch.zeros_like(lengths)
    return (lengths - low) / (high - low)
