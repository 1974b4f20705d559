"""A model with dense weights as an ordinary transformers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .quiet import no_progress_bars
from .tokenizer_check import probe_of, write_probe


def save_dense(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model, configuration and tokenizer into `folder`, which may exist. Raises BadInput when
    the saved tokenizer would be read in another way.
    """
    with no_progress_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_probe(folder, probe_of(folder, tokenizer))
