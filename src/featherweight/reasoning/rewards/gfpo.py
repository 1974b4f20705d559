"""Group filtered policy optimisation, GFPO: sample many answers, learn from few
(arXiv 2508.09726).

A filter, not a reward: mean and standard deviation of the rewards are taken over the rows that are
kept, and the other rows get an advantage of 0. The paper samples 8, 16 or 24 answers and keeps at
most 8.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from ...base.errors import UsageError
from ..marks import Marks

Measure = Literal["length", "efficiency"]


def keep(group: Marks, k: int, by: Measure = "length") -> Bool[Tensor, " texts"]:
    """Which k answers of one group to learn from: the shortest ones, or those with the largest
    c / L ("efficiency"). Among equals the correct and then the shorter ones are kept, and an
    ungraded answer never is.

    Raises UsageError for k below 1 and an unknown `by`.
    """
    if k < 1:
        raise UsageError(f"gfpo keeps k={k} answers of a group; the paper keeps 8 of 16")
    if by not in ("length", "efficiency"):
        raise UsageError(f"gfpo keeps answers by {by!r}; use 'length' or 'efficiency'")
    lengths, correct = group.lengths, group.correct
    first = lengths if by == "length" else -correct / lengths.clamp(min=1)
    # The last key of lexsort is the most important one; NaN would sort last only by itself.
    keys = (lengths, -correct, first, ~group.has_mark)
    order = torch.from_numpy(np.lexsort([key.cpu().numpy() for key in keys]))
    is_kept = torch.zeros(len(group), dtype=torch.bool, device=lengths.device)
    is_kept[order[:k].to(lengths.device)] = True
    return is_kept & group.has_mark
