"""Exports: packed models written in the file formats of other programs.

An export stores the same integer codes in another layout and never rounds a weight again. The files
are read again afterwards and compared with the packed model.

To add a target, write one file that holds its `Exporter` and add one line to SUMMARIES. The name of
the file and the name that users type follow from the name of the class: `CompressedTensors` stands
in compressed_tensors.py and is called compressed-tensors. Nothing here imports torch, so that the
shell can list the targets at once.
"""

from __future__ import annotations

import re
from typing import Any

from ...base import spec
from ...base.errors import UsageError
from ...base.lazy import lazy_names

# Class -> what it writes; the shell's help shows this text.
SUMMARIES = {
    "CompressedTensors": "a folder for vLLM and transformers",
    "GGUF": "one file for llama.cpp and its relatives",
    "HF": "an ordinary transformers folder that anything loads, every weight decoded to the "
    "model's dtype, so as large as the original",
}


def target_name(class_name: str) -> str:
    """What users call the target of a class: `CompressedTensors` -> compressed-tensors."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", class_name).lower()


__all__ = [*SUMMARIES]
__getattr__, __dir__ = lazy_names(
    __name__, {name: target_name(name).replace("-", "_") for name in SUMMARIES}
)


def summaries() -> dict[str, str]:
    """What users call each target -> what it writes."""
    return {target_name(name): summary for name, summary in SUMMARIES.items()}


def find(target: str) -> type[Any]:
    """The `Exporter` class of the target that users call `target`.

    Raises UsageError, which names the most similar target, when there is none of this name.
    """
    classes = {target_name(name): name for name in SUMMARIES}
    if target not in classes:
        raise UsageError(f"unknown export {target!r}; {spec.nearest(target, tuple(classes))}")
    exporter: type[Any] = __getattr__(classes[target])
    return exporter
