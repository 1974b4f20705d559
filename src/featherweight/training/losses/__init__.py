"""Losses of language models: `TokenLoss`, a sum of terms. The numerics are those of
`ops.divergence`.
"""

from __future__ import annotations

from .hidden import HiddenCosine, HiddenMSE, uniform_layers
from .relation import RelationKL
from .terms import (
    CrossEntropy,
    Distillation,
    ForwardKL,
    JensenShannon,
    PolicyGradientKL,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
    Term,
    TopKKL,
    TotalVariation,
)
from .token_loss import TokenLoss
from .views import Positions

__all__ = [
    "CrossEntropy",
    "Distillation",
    "ForwardKL",
    "HiddenCosine",
    "HiddenMSE",
    "JensenShannon",
    "PolicyGradientKL",
    "Positions",
    "RelationKL",
    "ReverseKL",
    "SkewKL",
    "SkewReverseKL",
    "Term",
    "TokenLoss",
    "TopKKL",
    "TotalVariation",
    "uniform_layers",
]
