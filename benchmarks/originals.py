"""The logits of an original, computed once and kept on disk for all that is compared with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import progress
from torch import Tensor, nn

from featherweight.models.answers import Answers, Full, write_answers


def original_answers(
    model: nn.Module, tokenizer: Any, windows: Tensor, folder: Path, model_id: str
) -> Answers:
    """The answers of `model` about `windows` in float16, whose rounding costs a KL of 3e-6."""
    return write_answers(
        model,
        windows,
        folder,
        Full("float16"),
        tokenizer=tokenizer,
        model_id=model_id,
        listener=progress("original"),
    )
