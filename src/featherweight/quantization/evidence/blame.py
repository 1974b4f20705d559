"""The chapter on layers: a heat map of the error of every layer, with a bar for the KL of every
block above it, and a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...reporting import NUMBER, Chapter, Column, ColumnBars, HeatMap, Section, Table, Unit
from ...reporting.numbers import DASH, is_number
from .layers import ERRORS, Position, error_key, position, solved_by, worst_first
from .sizes import bits_per_weight

MAX_KINDS = 40  # rows of the map; a model with more kinds of layers shows the first ones
FIRST_ROWS = 20
TWO_DIGITS = Unit(digits=2)

Layers = list[Mapping[str, Any]]


def describe_blame(results: Mapping[str, Any]) -> Chapter | None:
    """The chapter with the error of each layer and the KL of each block; None without layers."""
    layers: Layers = results["layers"]
    if not layers:
        return None
    note = (
        "The weighted error is the share of a layer's output that compression changed on "
        "calibration text. The KL of a block says what the whole model makes of it when only that "
        "block is compressed."
    )
    heat_map = _heat_map(layers)
    items: list[Section] = [] if heat_map is None else [heat_map]
    return Chapter("Which layers are to blame", [*items, _table(layers)], note)


def _heat_map(layers: Layers) -> HeatMap | None:
    """The heat map: a column for each block, a row for each layer of a block. The experts of a
    block share a cell, which shows the largest error among them.
    """
    cells: dict[Position, Layers] = {}
    block_kls: dict[int, Any] = {}
    for layer in layers:
        if (layer_position := position(str(layer.get("name", "")))) is not None:
            cells.setdefault(layer_position, []).append(layer)
            block_kls[layer_position.block] = layer.get("kl_block")
    if not cells:
        return None
    key = error_key(layers)
    kinds = list(dict.fromkeys(layer_position.name for layer_position in cells))[:MAX_KINDS]
    blocks = sorted(block_kls)
    grid = [[cells.get(Position(block, kind), []) for block in blocks] for kind in kinds]
    every_cell = [(i, j) for i in range(len(kinds)) for j in range(len(blocks))]
    kls = [block_kls[block] if is_number(block_kls[block]) else None for block in blocks]
    return HeatMap(
        "Every layer of every block",
        rows=[kind.rsplit(".", 1)[-1] for kind in kinds],
        columns=[str(block) for block in blocks],
        values=[[_largest(cell, key) for cell in row] for row in grid],
        label=ERRORS[key],
        row_noun="layer",
        column_noun="block",
        bars=ColumnBars("KL of one\nblock alone", kls, hint="nats"),
        blanks={(i, j) for i, j in every_cell if not grid[i][j]},
        hints={
            (i, j): _cell_name(grid[i][j], blocks[j], kinds[i]) for i, j in every_cell if grid[i][j]
        },
        note="Darker or brighter means more error; a hollow mark was not measured.",
    )


def _largest(layers: Layers, key: str) -> float | None:
    return max((layer[key] for layer in layers if is_number(layer.get(key))), default=None)


def _cell_name(layers: Layers, block: int, kind: str) -> str:
    if len(layers) == 1:
        return str(layers[0].get("name"))
    return f"block {block}, worst of {len(layers)} {kind}"


def _table(layers: Layers) -> Table:
    """Every layer with its figures, worst first."""
    columns = [
        Column("Layer", code=True),
        Column("Weighted\nerror", NUMBER, meter=True),
        Column("KL of its\nblock", NUMBER),
        Column("Predicted\nKL", TWO_DIGITS),
        Column("Plain\nerror", NUMBER),
        Column("Bits a\nweight", NUMBER),
        Column("Format"),
        Column("Seconds", TWO_DIGITS),
        Column("Solved by"),
    ]
    keys = ("error_weighted", "kl_block", "predicted_kl", "error_plain")
    rows = [
        [
            str(layer.get("name", "")),
            *(layer[key] if is_number(layer.get(key)) else None for key in keys),
            bits_per_weight(layer),
            str(layer.get("format") or DASH),
            layer["seconds"] if is_number(layer.get("seconds")) else None,
            solved_by(layer),
        ]
        for layer in worst_first(layers)
    ]
    note = (
        "Predicted KL is an estimate from curvature, not a measurement; a dash was not measured. "
        "The gate is the expected loss on held-out text with both sides over that with one."
    )
    return Table(
        f"All {len(layers)} compressed layers, worst first",
        columns,
        rows,
        note,
        first_rows=FIRST_ROWS,
        row_noun="layers",
        full_width=True,
    )
