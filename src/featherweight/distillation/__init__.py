"""Distillation: a smaller student learns to answer like its teacher.

    student = keep_blocks(teacher, spread(30, 2))
    for step in distill(student, Answers.open("out/answers"), Recipe(steps=500)): ...

    match = match_tokenizers(teacher_tokenizer, student_tokenizer)
    loss = CrossTokenizerLoss(teacher, match)       # reads AlignedBatches(aligned_windows(...), 8)

Offline from answers on disk, on-policy on what the student writes, on texts that the teacher wrote,
or, for a student with another tokenizer, from the teacher beside it. Importing this package imports
torch.
"""

from __future__ import annotations

from .across_tokenizers import CrossTokenizerLoss
from .alignment import AlignedBatches, AlignedText, aligned_chat, aligned_windows
from .channels import KeptChannels, keep_channels
from .correction import correct
from .offline import AnswerBatches, distill
from .on_policy import OnPolicyLoss, PromptBatches, distill_on_policy
from .recipe import Recipe
from .sequence import distill_sequences, write_texts
from .students import keep_blocks, spread
from .tokenizer_match import TokenizerMatch, match_tokenizers

__all__ = [
    "AlignedBatches",
    "AlignedText",
    "AnswerBatches",
    "CrossTokenizerLoss",
    "KeptChannels",
    "OnPolicyLoss",
    "PromptBatches",
    "Recipe",
    "TokenizerMatch",
    "aligned_chat",
    "aligned_windows",
    "correct",
    "distill",
    "distill_on_policy",
    "distill_sequences",
    "keep_blocks",
    "keep_channels",
    "match_tokenizers",
    "spread",
    "write_texts",
]
