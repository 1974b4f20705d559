"""The layers of results.json: where each one sits, which is worst, and how it was solved.

A layer's position follows from its name: the first number in a dotted name is its block, what comes
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

# Which error ranks the layers: the first that was measured.
ERRORS = {
    "error_weighted": "Curvature-weighted relative error",
    "error_plain": "Relative squared error",
}


@dataclass(frozen=True)
class Position:
    """Where a layer sits: its block, and its name inside the block."""

    block: int
    name: str


def position(name: str) -> Position | None:
    """The position of the layer with this dotted name, None outside of the blocks."""
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
    """How a layer was solved, in a line: "YAQA, gate 0.841, damping 0.03/0.3".

    Two dampings belong to the two sides. The gate is the expected loss with both sides over that
    with one.
    """
    # The arguments of the rounding are in the recipe; the damping that was really used follows.
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
    """Which formats hold how many layers: "210 layers in Trellis(bits=3), 1 in Int(bits=8)"."""
    layers = mappings_at(results, "layers")
    counts = Counter(str(layer["format"]) for layer in layers if layer.get("format"))
    words = [
        f"{count} {'layers ' if i == 0 else ''}in {name}"
        for i, (name, count) in enumerate(counts.most_common())
    ]
    return ", ".join(words)
