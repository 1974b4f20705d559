"""Model families: one record for each architecture, with the facts that import, export and the
native engine need.

To add a family, write one file that holds its record and add one line to FAMILIES. Nothing here
imports torch.
"""

from __future__ import annotations

from .base import (
    ATTENTION_CAP,
    EMBEDDING,
    FINAL_CAP,
    FINAL_NORM,
    FULL_ATTENTION,
    HEAD,
    MATRICES,
    SLIDING_ATTENTION,
    Family,
)
from .gemma2 import GEMMA2
from .gemma3 import GEMMA3
from .granite import GRANITE
from .hyperparameters import Hyperparameters, periodic_layer_types, read_hyperparameters
from .llama import LLAMA
from .mistral import MISTRAL
from .olmo2 import OLMO2
from .phi3 import PHI3
from .qwen2 import QWEN2
from .qwen3 import QWEN3
from .rope import Rope, longrope_attention

FAMILIES = (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3, GRANITE, OLMO2, PHI3)
__all__ = [
    "ATTENTION_CAP",
    "EMBEDDING",
    "FAMILIES",
    "FINAL_CAP",
    "FINAL_NORM",
    "FULL_ATTENTION",
    "GEMMA2",
    "GEMMA3",
    "GRANITE",
    "HEAD",
    "LLAMA",
    "MATRICES",
    "MISTRAL",
    "OLMO2",
    "PHI3",
    "QWEN2",
    "QWEN3",
    "SLIDING_ATTENTION",
    "Family",
    "Hyperparameters",
    "Rope",
    "find",
    "find_gguf",
    "longrope_attention",
    "periodic_layer_types",
    "read_hyperparameters",
]


def find(model_type: object) -> Family | None:
    """The family that transformers calls `model_type`; None when there is no record of it."""
    return next((family for family in FAMILIES if family.model_type == model_type), None)


def find_gguf(architecture: object) -> Family | None:
    """The family as which files of GGUF's `architecture` are read; None when there is no record.

    Where several families have one architecture it is the first: such files do not say which of
    them it was, and the first computes the same.
    """
    return next((family for family in FAMILIES if family.gguf.architecture == architecture), None)
