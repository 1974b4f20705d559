"""`render`: sections in, one HTML page out that needs nothing else: no network, no fonts, no
library.

Everything that is put into the page is escaped by the template engine or by the element tree of the
drawings; control characters and lone surrogates, which HTML cannot hold, are replaced. A content
security policy in the page forbids any request and any script but the one it carries, named by its
hash.

The style is inlined; light, dark and print are one set of colours in CSS. Without JavaScript the
page is complete: the script only sorts tables and folds them to their first rows.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..base.files import write_atomic
from .bars import draw_bars
from .curves import draw_curve
from .heat_maps import draw_heat_map
from .pictures import Picture
from .scatters import draw_scatter
from .sections import (
    Bars,
    Chapter,
    Curve,
    HeatMap,
    KeyFigure,
    Samples,
    Scatter,
    Section,
    Table,
    Text,
)
from .tables import folded_rows, row_views
from .templating import environment, replace_unprintable

TEMPLATES = Path(__file__).parent / "templates"
DRAW: dict[type, Callable[[Any, str], Picture | None]] = {
    Bars: draw_bars,
    Curve: draw_curve,
    HeatMap: draw_heat_map,
    Scatter: draw_scatter,
}


def render(
    title: str,
    verdict: str,
    sections: Sequence[Section | Chapter],
    *,
    subtitle: str = "",
    figures: Sequence[KeyFigure] = (),
    eyebrow: str = "featherweight report",
    window_title: str = "",
    footer: str = "Made by featherweight.",
) -> str:
    """The page as text.

    title: what the page is about, its largest heading; verdict: the result in one or two sentences.
    sections: in the order of the page; a section outside of a chapter gets a heading of its own.
    subtitle: a line below the title. figures: the numbers to remember, below the verdict.
    eyebrow: a line above the title. window_title: the title of the browser's window, if it is not
    `title`. footer: a sentence at the end.
    """
    chapters = [item if isinstance(item, Chapter) else _as_chapter(item) for item in sections]
    ids = _Ids()
    views = [_chapter_view(chapter, ids) for chapter in chapters]
    warnings = [
        (section, identity)
        for view in views
        for section, identity in view["texts"]
        if section.warnings
    ]
    page = (
        environment(TEMPLATES)
        .get_template("page.html.j2")
        .render(
            title=title,
            verdict=verdict,
            subtitle=subtitle,
            figures=figures,
            eyebrow=eyebrow,
            window_title=window_title or title,
            footer=footer,
            chapters=views,
            num_warnings=sum(len(section.warnings) for section, _ in warnings),
            warnings_id=warnings[0][1] if warnings else "",
            style=Markup(_content("page.css")),
            script=Markup(_content("page.js")),
            script_hash=_script_hash(),
        )
    )
    return replace_unprintable(page)


def write_page(page: str, out: Path | str) -> Path:
    """Write `page`, as `render` gives it, and return the file's path.

    `out` is a file that ends in .html, or a folder, which then gets `report.html`; missing folders
    are made.
    """
    out = Path(out)
    path = out if out.suffix == ".html" else out / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page)
    return path


class _Ids:
    """Identifiers made of titles, unique on one page."""

    def __init__(self) -> None:
        self._identities: set[str] = set()

    def unique(self, title: str) -> str:
        base = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "section"
        identity, number = base, 2
        while identity in self._identities:
            identity, number = f"{base}-{number}", number + 1
        self._identities.add(identity)
        return identity


def _as_chapter(section: Section) -> Chapter:
    """A section on its own: its title and note become those of a chapter."""
    return Chapter(
        section.title, [replace(section, title="", half_width=False, note="")], section.note
    )


def _chapter_view(chapter: Chapter, ids: _Ids) -> dict[str, Any]:
    """What the template needs of a chapter: runs of sections of one width, as HTML."""
    identity = ids.unique(chapter.title)
    runs: list[dict[str, Any]] = []
    texts: list[tuple[Text, str]] = []
    for section in chapter.sections:
        section_id = ids.unique(section.title or f"{chapter.title} content")
        if isinstance(section, Text):
            texts.append((section, section_id))
        if not runs or runs[-1]["in_columns"] != section.half_width:
            runs.append({"in_columns": section.half_width, "items_markup": []})
        runs[-1]["items_markup"].append(_section_markup(section, section_id, chapter.title))
    return {
        "title": chapter.title,
        "note": chapter.note,
        "id": identity,
        "runs": runs,
        "texts": texts,
    }


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
    picture = DRAW[type(section)](replace(section, title=title), f"{identity}-picture")
    numbers = Markup()
    if picture is not None:
        # The picture's caption shows its title; the table repeats it for screen readers only.
        table = replace(picture.numbers, title="")
        numbers = _table_markup(table, f"{identity}-numbers", f"Numbers: {title}", picture.swatches)
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


@cache
def _content(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _script_hash() -> str:
    """The script's SHA-256 as a content security policy writes it."""
    return base64.b64encode(hashlib.sha256(_content("page.js").encode()).digest()).decode()
