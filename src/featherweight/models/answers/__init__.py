"""A model's answers on disk: its next-token distributions over a text, written once and read by
distillation, recovery and KL evaluation, in constant memory.

    answers = write_answers(teacher, windows, "out/answers", kind=TopK(64), ...)
    answers = Answers.open("out/answers")
    row = answers[0]                                # of one window

The files are described in `docs/answers.md`.
"""

from __future__ import annotations

from .folder import Answers, holds_answers, text_hash, tokenizer_hash
from .header import Header
from .kinds import Full, Kind, Sampled, TopK
from .rows import FullAnswer, SparseAnswer
from .writing import size_bytes, write_answers

__all__ = [
    "Answers",
    "Full",
    "FullAnswer",
    "Header",
    "Kind",
    "Sampled",
    "SparseAnswer",
    "TopK",
    "holds_answers",
    "size_bytes",
    "text_hash",
    "tokenizer_hash",
    "write_answers",
]
