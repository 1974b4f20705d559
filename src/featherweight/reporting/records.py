"""A record of a benchmark or a study as sections: its rows, its checks, and how it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base.records import Check, Record
from . import numbers
from .numbers import BYTES, NUMBER, Unit, is_number
from .page import render
from .sections import Cell, Chapter, Column, Section, Table, Text

FIRST_ROWS = 40
BYTES_SUFFIX = "_bytes"


def record_sections(record: Record) -> list[Section | Chapter]:
    """The rows of `record` as a table, its checks as a table, and its meta as facts.

    Lists and mappings in rows are left to the JSON file. Columns whose names end in _bytes are
    written as sizes.
    """
    sections: list[Section | Chapter] = []
    if record.rows:
        sections.append(_rows_table(record.rows))
    if record.checks:
        sections.append(_checks_table(record.checks))
    return [*sections, _meta_chapter(record.meta())]


def record_page(record: Record) -> str:
    """The page of a record; its verdict says which checks failed."""
    return render(record.title, _verdict(record.checks), record_sections(record))


def _verdict(checks: Sequence[Check]) -> str:
    failures = [check.name for check in checks if not check.ok]
    if not checks:
        return "No claim was checked."
    if failures:
        return f"{len(failures)} of {len(checks)} checks failed: {'; '.join(failures)}."
    return "The only check passed." if len(checks) == 1 else f"All {len(checks)} checks passed."


def _rows_table(rows: Sequence[dict[str, Any]]) -> Table:
    names = list(
        dict.fromkeys(key for row in rows for key, value in row.items() if _is_cell(value))
    )
    columns = [_column(name, [row.get(name) for row in rows]) for name in names]
    cells = [
        [_cell(row.get(name), column) for name, column in zip(names, columns, strict=True)]
        for row in rows
    ]
    return Table(
        "What was measured", columns, cells, first_rows=FIRST_ROWS, full_width=len(columns) > 7
    )


def _column(name: str, values: Sequence[Any]) -> Column:
    """A column of numbers when every value is one or is missing, else a column of text."""
    present = [value for value in values if value is not None]
    title = name.removesuffix(BYTES_SUFFIX).replace("_", " ")
    if not present or not all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in present
    ):
        return Column(title)
    if name.endswith(BYTES_SUFFIX):
        return Column(title, BYTES)
    is_integer = all(isinstance(value, int) for value in present)
    return Column(title, Unit(decimals=0) if is_integer else Unit(digits=4))


def _cell(value: Any, column: Column) -> Cell:
    if value is None or not _is_cell(value):
        return None
    if column.unit is not None:
        return float(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NUMBER.text(value) if isinstance(value, float) else str(value)


def _is_cell(value: Any) -> bool:
    """Whether a value fits a cell of a table; lists and mappings do not."""
    return not isinstance(value, list | dict | tuple)


def _checks_table(checks: Sequence[Check]) -> Table:
    columns = [Column("Claim"), Column("Value", Unit(digits=4)), Column("Bound"), Column("Result")]
    rows: list[list[Cell]] = [
        [check.name, check.value, check.target, "passed" if check.ok else "failed"]
        for check in checks
    ]
    return Table("What was claimed", columns, rows)


def _meta_chapter(meta: dict[str, Any]) -> Chapter:
    """Conditions on the left, versions and settings on the right."""
    versions = {str(key): str(value) for key, value in meta.get("versions", {}).items()}
    settings = {str(key): _plain_text(value) for key, value in meta.get("settings", {}).items()}
    section_keys = {"title", "key", "versions", "settings"}
    facts = [
        (_fact_name(key), _fact(key, value))
        for key, value in meta.items()
        if key not in section_keys
    ]
    sections = [Text("Conditions", facts=facts, half_width=True)]
    if settings:
        sections.append(Text("Settings", facts=list(settings.items()), half_width=True))
    sections.append(Text("Versions", facts=list(versions.items()), half_width=True))
    return Chapter("How it was measured", sections)


def _fact_name(key: str) -> str:
    return "time" if key == "seconds" else key.removesuffix(BYTES_SUFFIX).replace("_", " ")


def _fact(key: str, value: Any) -> str:
    if key.endswith(BYTES_SUFFIX):
        return numbers.size(value)
    return numbers.duration(value) if key == "seconds" else _plain_text(value)


def _plain_text(value: Any) -> str:
    """Plain data on one line."""
    if isinstance(value, list | tuple):
        return ", ".join(_plain_text(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, float) and is_number(value):
        return f"{value:.4g}"
    return str(value)
