"""Distillation: a smaller student learns the teacher's distributions from its answers on disk.

    student = keep_blocks(teacher, spread(30, 2))
    for step in distill(student, Answers.open("out/answers"), Recipe(steps=500)): ...

The teacher need not be in memory while the student learns. Importing this package imports torch.
"""

from __future__ import annotations

from .offline import AnswerBatches, Recipe, distill
from .students import keep_blocks, spread

__all__ = ["AnswerBatches", "Recipe", "distill", "keep_blocks", "spread"]
