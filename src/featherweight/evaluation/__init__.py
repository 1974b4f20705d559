"""What it cost: perplexity, KL from the original, top-1 agreement, and which block is to blame.

`evaluate(model, [Perplexity(windows), KL(original, windows)])` reads every window once with each
model and returns `Results`: plain entries for results.json and the per-token scores behind them.
Importing this room imports torch.
"""

from __future__ import annotations

from .base import Metric, Scores
from .blame import block_kl, predicted_by_block, with_block_kl
from .kl import KL
from .measuring import Results, TextResult, evaluate
from .perplexity import Perplexity
from .teacher_cache import TeacherCache

__all__ = [
    "KL",
    "Metric",
    "Perplexity",
    "Results",
    "Scores",
    "TeacherCache",
    "TextResult",
    "block_kl",
    "evaluate",
    "predicted_by_block",
    "with_block_kl",
]
