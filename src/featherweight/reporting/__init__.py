"""Results for people: sections of plain data become one HTML page that works offline.

    nats = Unit(name="nats")
    scatter = Scatter("Cost", [Points("Quest", reads, kl)], Axis("Reads"), Axis("KL", nats))
    table = Table("All runs", [Column("Method"), Column("KL", nats)], rows)
    page = render("Attention budgets", "Half of the reads cost 0.01 nats.", [scatter, table])
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
    ReferenceLine,
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
    "ReferenceLine",
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
