"""Turns sections into the HTML of a page: chapters, runs of sections, and their identifiers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from .bars import draw_bars
from .curves import draw_curve
from .heat_maps import draw_heat_map
from .pictures import Picture
from .scatters import draw_scatter
from .sections import Bars, Chapter, Curve, HeatMap, Samples, Scatter, Section, Table, Text
from .tables import folded_rows, row_views
from .templating import environment

TEMPLATES = Path(__file__).parent / "templates"
DRAW: dict[type, Callable[[Any, str], Picture | None]] = {
    Bars: draw_bars,
    Curve: draw_curve,
    HeatMap: draw_heat_map,
    Scatter: draw_scatter,
}


@dataclass(frozen=True)
class SectionRun:
    """Sections of one width that follow each other, as HTML; `in_columns` for half width."""

    in_columns: bool
    items: list[Markup]


@dataclass(frozen=True)
class ChapterView:
    """A chapter as the template shows it; `identity` is the id of its heading.

    num_warnings: how many warnings its sections have; warnings_id: the id of the first section that
    has some, or "".
    """

    title: str
    note: str
    identity: str
    runs: list[SectionRun]
    num_warnings: int
    warnings_id: str


class Identifiers:
    """Identifiers made of titles, unique on one page.

    None of them has two dashes in a row, so `identity--suffix` is unique as well.
    """

    def __init__(self) -> None:
        self._identities: set[str] = set()

    def unique(self, title: str) -> str:
        """An identifier for `title` that no earlier call has returned."""
        base = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-") or "section"
        identity, number = base, 2
        while identity in self._identities:
            identity, number = f"{base}-{number}", number + 1
        self._identities.add(identity)
        return identity


def chapter_views(items: Sequence[Section | Chapter]) -> list[ChapterView]:
    """The chapters of a page. A section on its own becomes a chapter with its title and note."""
    identifiers = Identifiers()
    chapters = [item if isinstance(item, Chapter) else _as_chapter(item) for item in items]
    return [_chapter_view(chapter, identifiers) for chapter in chapters]


def _as_chapter(section: Section) -> Chapter:
    content = replace(section, title="", note="", half_width=False)
    return Chapter(section.title, [content], section.note)


def _chapter_view(chapter: Chapter, identifiers: Identifiers) -> ChapterView:
    heading = identifiers.unique(chapter.title)
    runs: list[SectionRun] = []
    warnings: dict[str, int] = {}
    for section in chapter.sections:
        identity = identifiers.unique(section.title or f"{chapter.title} content")
        if isinstance(section, Text) and section.warnings:
            warnings[identity] = len(section.warnings)
        if not runs or runs[-1].in_columns != section.half_width:
            runs.append(SectionRun(section.half_width, []))
        runs[-1].items.append(_section_markup(section, identity, chapter.title))
    first_id = next(iter(warnings), "")
    return ChapterView(chapter.title, chapter.note, heading, runs, sum(warnings.values()), first_id)


def _section_markup(section: Section, identity: str, chapter_title: str) -> Markup:
    """The HTML of one section. `chapter_title` names a section that has no title of its own."""
    match section:
        case Table():
            return _table_markup(section, identity, chapter_title)
        case Text():
            return _fill("text.html.j2", section=section, id=identity)
        case Samples():
            return _fill("samples.html.j2", section=section, id=identity)
    title = section.title or chapter_title
    picture = DRAW[type(section)](replace(section, title=title), f"{identity}--picture")
    numbers = Markup()
    if picture is not None:
        # The picture's caption shows its title; the table repeats it for screen readers only.
        table = replace(picture.numbers, title="")
        numbers = _table_markup(
            table, f"{identity}--numbers", f"Numbers: {title}", picture.swatches
        )
    return _fill("picture.html.j2", section=section, picture=picture, numbers=numbers)


def _table_markup(
    table: Table, identity: str, hidden_caption: str, swatches: Sequence[str] = ()
) -> Markup:
    return _fill(
        "table.html.j2",
        section=table,
        id=identity,
        rows=row_views(table, swatches),
        first_rows=folded_rows(table),
        hidden_caption=hidden_caption,
    )


def _fill(template: str, **values: Any) -> Markup:
    return Markup(environment(TEMPLATES).get_template(template).render(**values))
