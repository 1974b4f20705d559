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
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from markupsafe import Markup

from ..base.files import write_atomic
from .markup import TEMPLATES, chapter_views
from .sections import Chapter, KeyFigure, Section
from .templating import environment, replace_unprintable


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
    chapters = chapter_views(sections)
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
            chapters=chapters,
            num_warnings=sum(chapter.num_warnings for chapter in chapters),
            warnings_id=next((c.warnings_id for c in chapters if c.warnings_id), ""),
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


@cache
def _content(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _script_hash() -> str:
    """The script's SHA-256 as a content security policy writes it."""
    return base64.b64encode(hashlib.sha256(_content("page.js").encode()).digest()).decode()
