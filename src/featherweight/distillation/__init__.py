"""Distillation: a smaller student learns the teacher's distributions from its answers on disk, or,
when it has another tokenizer, from the teacher beside it.

    student = keep_blocks(teacher, spread(30, 2))
    for step in distill(student, Answers.open("out/answers"), Recipe(steps=500)): ...

    match = match_tokenizers(teacher_tokenizer, student_tokenizer)
    loss = CrossTokenizerLoss(teacher, match)       # reads AlignedBatches(aligned_windows(...), 8)

The teacher need not be in memory while the student learns from answers on disk. Importing this
package imports torch.
"""

from __future__ import annotations

from .across_tokenizers import CrossTokenizerLoss
from .alignment import AlignedBatches, AlignedText, aligned_chat, aligned_windows
from .offline import AnswerBatches, Recipe, distill
from .students import keep_blocks, spread
from .tokenizer_match import TokenizerMatch, match_tokenizers

__all__ = [
    "AlignedBatches",
    "AlignedText",
    "AnswerBatches",
    "CrossTokenizerLoss",
    "Recipe",
    "TokenizerMatch",
    "aligned_chat",
    "aligned_windows",
    "distill",
    "keep_blocks",
    "match_tokenizers",
    "spread",
]
