"""Texts for calibration (on which curvature is measured) and for evaluation (on which results are
measured). Each text has only one of these two roles.

`text(name)` reads a shipped text, `windows` cuts it into evaluation windows, and `calibration`
mixes shipped corpora into sequences of one length. `calibration_from_files`,
`calibration_from_text` and `calibration_from_model` make a calibration set from a user's own files,
from a string, or from text that the model writes. `chat_example` marks the assistant's tokens of a
conversation, and `tasks` are questions with graders. `corpora`, `mixes` and `tasks` need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.lazy import lazy_names

if TYPE_CHECKING:
    from . import tasks
    from .calibration_set import (
        Calibration,
        blend,
        calibration,
        calibration_from_documents,
        calibration_from_files,
        calibration_from_text,
    )
    from .corpora import CORPORA, Corpus, text
    from .examples import Example, answer_example, chat_example
    from .mixes import MIXES, SHIPPED_MIX
    from .model_text import calibration_from_model
    from .small_tokenizers import bpe_tokenizer, byte_tokenizer, word_tokenizer
    from .tokens import first_tokens, windows

_TARGETS = {
    "Calibration": "calibration_set",
    "blend": "calibration_set",
    "calibration": "calibration_set",
    "calibration_from_documents": "calibration_set",
    "calibration_from_files": "calibration_set",
    "calibration_from_text": "calibration_set",
    "calibration_from_model": "model_text",
    "bpe_tokenizer": "small_tokenizers",
    "byte_tokenizer": "small_tokenizers",
    "word_tokenizer": "small_tokenizers",
    "MIXES": "mixes",
    "SHIPPED_MIX": "mixes",
    "CORPORA": "corpora",
    "Corpus": "corpora",
    "first_tokens": "tokens",
    "text": "corpora",
    "windows": "tokens",
    "Example": "examples",
    "answer_example": "examples",
    "chat_example": "examples",
    "tasks": "tasks:",
}

__all__ = [
    "CORPORA",
    "MIXES",
    "SHIPPED_MIX",
    "Calibration",
    "Corpus",
    "Example",
    "answer_example",
    "blend",
    "bpe_tokenizer",
    "byte_tokenizer",
    "calibration",
    "calibration_from_documents",
    "calibration_from_files",
    "calibration_from_model",
    "calibration_from_text",
    "chat_example",
    "first_tokens",
    "tasks",
    "text",
    "windows",
    "word_tokenizer",
]
# The imports are lazy, so that the shell can list corpora and mixes without importing torch.
__getattr__, __dir__ = lazy_names(__name__, _TARGETS)
