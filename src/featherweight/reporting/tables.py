"""Prepares `Table` for the template: the text of each cell, what it is sorted by, and its meter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .numbers import DASH, is_number
from .scales import finite
from .sections import Cell, Column, Table

# Folding is worth a click only when it hides more than so many rows.
MIN_HIDDEN_ROWS = 5


@dataclass(frozen=True)
class CellView:
    """A cell as it is shown.

    sort_key: the number as text for a column of numbers ("" for a missing one), None for text.
    meter: the length of its bar in percent, None for none.
    """

    text: str
    sort_key: str | None
    meter: float | None


@dataclass(frozen=True)
class RowView:
    """A row: the cell that names it, the cells behind it, the colour of its swatch or "", and
    whether it sums up the rows with swatches that follow.
    """

    head: CellView
    cells: Sequence[tuple[Column, CellView]]
    swatch: str
    is_total: bool


def row_views(table: Table, swatches: Sequence[str] = ()) -> list[RowView]:
    """The rows of `table` as they are shown."""
    maxima = [
        max(finite(row[i] for row in table.rows), default=0.0) if column.meter else 0.0
        for i, column in enumerate(table.columns)
    ]
    views = []
    for number, row in enumerate(table.rows):
        cells = [_view(*pair) for pair in zip(row, table.columns, maxima, strict=True)]
        swatch = swatches[number] if swatches else ""
        is_total = any(swatches) and not swatch
        columns = zip(table.columns[1:], cells[1:], strict=True)
        views.append(RowView(cells[0], list(columns), swatch, is_total))
    return views


def folded_rows(table: Table) -> int | None:
    """The rows to which the table folds, None when folding would hide too little."""
    if table.first_rows is None or len(table.rows) <= table.first_rows + MIN_HIDDEN_ROWS:
        return None
    return table.first_rows


def _view(cell: Cell, column: Column, maximum: float) -> CellView:
    if column.unit is None:
        return CellView(DASH if cell is None else str(cell), None, None)
    if isinstance(cell, str):
        return CellView(cell, "", None)
    meter = 100 * cell / maximum if is_number(cell) and maximum > 0 and cell >= 0 else None
    sort_key = repr(float(cell)) if is_number(cell) else ""
    return CellView(column.unit.text(cell), sort_key, meter)
