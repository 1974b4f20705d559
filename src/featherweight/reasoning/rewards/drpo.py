"""Decoupled reward policy optimisation, DRPO (arXiv 2510.04474).

An advantage, not a reward. Right answers are compared with right ones only, so a long right answer
is never pushed down because of a wrong one: their weights are those of the distribution that gains
most length reward 1 - L / Lmax under a KL regularisation, exp((1 - L / Lmax) / lam) divided by the
sum. Wrong answers are pushed down by a softmax of their scores. A group learns nothing unless it
has both.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from ..marks import Marks


def advantages(
    group: Marks, scores: Float[Tensor, " texts"], lam: float = 0.1, tau: float = 10.0
) -> Float[Tensor, " texts"]:
    """The factor of each answer's score in the gradient of DRPO's objective, for one group: right
    ones sum to 1, wrong ones to -1; 0 for ungraded ones and for groups of one kind.

    scores: mean log-probability of an answer's tokens under the model. lam: strength of the KL
    regularisation, smaller is shorter. tau: temperature of the wrong answers. The authors' bound on
    the KL from the sampling policy (delta 1e-4) is a term of the loss and not in here. Raises
    UsageError unless lam and tau are positive.
    """
    for name, constant, usual in (("lam", lam, 0.1), ("tau", tau, 10)):
        if not (math.isfinite(constant) and constant > 0):
            raise UsageError(f"drpo: {name}={constant} should be above 0; the paper has {usual}")
    is_right, is_wrong = group.is_correct, group.has_mark & ~group.is_correct
    result = torch.zeros_like(group.correct)
    if bool(is_right.any()) and bool(is_wrong.any()):
        savings = 1 - group.lengths[is_right] / group.limit
        result[is_right] = torch.softmax(savings / lam, 0)
        result[is_wrong] = -torch.softmax(scores[is_wrong].to(result) / tau, 0)
    return result
