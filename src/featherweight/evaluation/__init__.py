"""Evaluation of a compressed model: perplexity, KL from the original, top-1 agreement, and the KL
that each block causes alone.

`evaluate(model, [Perplexity(windows), KL(original, windows)])` runs each model once on every window
and returns `Results`: plain entries for results.json, and the scores of all tokens. Importing this
package imports torch.
"""

from __future__ import annotations

from .base import Metric, Scores
from .blame import block_kl, predicted_by_block, with_block_kl
from .kl import KL
from .measuring import Results, TextResult, evaluate
from .perplexity import Perplexity

__all__ = [
    "KL",
    "Metric",
    "Perplexity",
    "Results",
    "Scores",
    "TextResult",
    "block_kl",
    "evaluate",
    "predicted_by_block",
    "with_block_kl",
]
