"""Packed folders of tiny models to export, quantized to nearest by a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from featherweight.interchange.packed import folder as packed
from featherweight.quantization.formats.base import Format
from featherweight.quantization.pipeline import quantize
from featherweight.quantization.plans import Plan
from featherweight.quantization.rounding import Nearest

TABLES = ("model.embed_tokens", "lm_head")


def pack(
    folder: Path,
    make: Callable[[], tuple[Any, Any]],
    plan: Mapping[str, Format | None],
    tables: Format | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """The model of `make` in `dtype`, its matrices as `plan` says and its tables as `tables`, saved
    at `folder`.
    """
    model, tokenizer = make()
    model = model.to(dtype)
    names = TABLES[:1] if model.config.tie_word_embeddings else TABLES
    quantize(
        model,
        Nearest(),
        Plan({**plan} if "lm_head" in plan else {**dict.fromkeys(names, tables), **plan}),
    )
    return packed.save(model, folder, tokenizer)
