"""Distillation: a smaller student learns to answer like its teacher.

    student = keep_blocks(teacher, spread(30, 2))
    for step in distill(student, Answers.open("out/answers"), Recipe(steps=500)): ...

Offline from answers on disk, on-policy on what the student writes, or on texts that the teacher
wrote. Importing this package imports torch.
"""

from __future__ import annotations

from .channels import KeptChannels, keep_channels
from .correction import correct
from .offline import AnswerBatches, distill
from .on_policy import OnPolicyLoss, PromptBatches, distill_on_policy
from .recipe import Recipe
from .sequence import distill_sequences, write_texts
from .students import keep_blocks, spread

__all__ = [
    "AnswerBatches",
    "KeptChannels",
    "OnPolicyLoss",
    "PromptBatches",
    "Recipe",
    "correct",
    "distill",
    "distill_on_policy",
    "distill_sequences",
    "keep_blocks",
    "keep_channels",
    "spread",
    "write_texts",
]
