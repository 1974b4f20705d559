"""The layers of results.json: their positions, their order by error, and how each was rounded.

The position of a layer follows from its dotted name: the first number is its block, and the part
after it is its name inside the block (`model.layers.7.mlp.down_proj` -> block 7, `mlp.down_proj`).
Further numbers count experts, which share one position. A layer without a number is an embedding
table or a head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...reporting.numbers import DASH, is_number, number
from .results import mappings_at

# The errors that can rank the layers, with their labels. The first one that was measured is used.
ERRORS = {
    "error_weighted": "Curvature-weighted relative error",
    "error_plain": "Relative squared error",
}


@dataclass(frozen=True)
class Position:
    """The position of a layer: its block, and its name inside the block."""

    block: int
    name: str


def position(name: str) -> Position | None:
    """The position of the layer with this dotted name; None for a layer outside the blocks."""
    words = name.split(".")
    for i, word in enumerate(words):
        if word.isdecimal():
            name = ".".join("*" if word.isdecimal() else word for word in words[i + 1 :])
            return Position(int(word), name)
    return None


def worst_first(layers: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Layers by curvature-weighted error, largest first; by plain error where no curvature was
    collected.
    """
    key = error_key(layers)
    return sorted(layers, key=lambda layer: -(layer[key] if is_number(layer.get(key)) else -1.0))


def error_key(layers: list[Mapping[str, Any]]) -> str:
    """The key of the error that ranks these layers."""
    for key in ERRORS:
        if any(is_number(layer.get(key)) for layer in layers):
            return key
    return "error_plain"


def solved_by(layer: Mapping[str, Any]) -> str:
    """How a layer was rounded, in one line: "YAQA, gate 0.841, damping 0.03/0.3".

    Two dampings belong to the input and the output side. The gate is the expected loss with both
    sides, divided by the expected loss with the input side alone.
    """
    # Only the name of the rounding is shown: its arguments are in the recipe, and the damping that
    # was needed is shown below.
    rounding = layer.get("rounding")
    words = [] if rounding is None else [str(rounding).partition("(")[0]]
    if is_number(layer.get("gate")):
        words.append(f"gate {number(layer['gate'])}")
    damping = [f"{layer[k]:g}" for k in ("damping", "output_damping") if is_number(layer.get(k))]
    if damping:
        words.append(f"damping {'/'.join(damping)}")
    fallbacks = layer.get("fallbacks")
    words += [str(fallback) for fallback in fallbacks] if isinstance(fallbacks, list) else []
    return ", ".join(words) or DASH


def formats(results: Mapping[str, Any]) -> str:
    """The number of layers in each format: "210 layers in Trellis(bits=3), 1 in Int(bits=8)"."""
    layers = mappings_at(results, "layers")
    counts = Counter(str(layer["format"]) for layer in layers if layer.get("format"))
    words = [
        f"{count} {'layers ' if i == 0 else ''}in {name}"
        for i, (name, count) in enumerate(counts.most_common())
    ]
    return ", ".join(words)
