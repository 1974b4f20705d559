"""Results for people: sections of plain data become one HTML page that works offline.

    page = render("Budgets of attention", "Half of the reads cost 0.01 nats.", [
        Scatter("Cost over reads", [Points("Quest", reads, kl, connect=True)], Axis("Reads"), Axis("KL")),
        Table("All runs", [Column("Method"), Column("KL", Unit(name="nats"))], rows),
    ])
    write_page(page, "out/report.html")

`sections.py` describes what there is to show and `page.py` renders it; one module draws each kind
of picture. This room knows no other room: whoever measured something makes its sections.
`record_page` does so for any `base.records.Record`.
"""

from __future__ import annotations

from .numbers import BYTES, COUNT, NUMBER, SECONDS, SHARE, Unit
from .page import render, write_page
from .records import record_page, record_sections
from .sections import (
    Axis,
    Bar,
    Bars,
    Chapter,
    Column,
    ColumnBars,
    Curve,
    HeatMap,
    KeyFigure,
    Line,
    Part,
    Points,
    Reference,
    Sample,
    Samples,
    Scatter,
    Section,
    Table,
    Text,
)

__all__ = [
    "BYTES",
    "COUNT",
    "NUMBER",
    "SECONDS",
    "SHARE",
    "Axis",
    "Bar",
    "Bars",
    "Chapter",
    "Column",
    "ColumnBars",
    "Curve",
    "HeatMap",
    "KeyFigure",
    "Line",
    "Part",
    "Points",
    "Reference",
    "Sample",
    "Samples",
    "Scatter",
    "Section",
    "Table",
    "Text",
    "Unit",
    "record_page",
    "record_sections",
    "render",
    "write_page",
]
