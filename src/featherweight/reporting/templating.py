"""The template engine of pages and model cards, and what makes text from outside harmless.

HTML templates escape everything that is put into them; only `Markup` passes as it is. Markdown has
no such switch: there the filter `escape_markdown` is applied by hand to each text from outside, and
YAML goes into a fence that it cannot close.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from markupsafe import Markup, escape

from . import numbers

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#])")
NOT_IN_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
CODE = re.compile("`([^`\n]+)`")


@cache
def environment(folder: Path) -> Environment:
    """The engine for the templates in `folder`.

    Templates named *.html.* escape what they print. A missing value is empty however deep it was
    looked up; the test `measured` tells numbers from everything else.
    """
    engine = Environment(
        loader=FileSystemLoader(folder),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    engine.filters |= {
        "number": numbers.number,
        "decimal": numbers.decimal,
        "count": numbers.count,
        "percent": numbers.percent,
        "share": numbers.share,
        "size": numbers.size,
        "duration": numbers.duration,
        "interval_ends": numbers.interval_ends,
        "escape_markdown": escape_markdown,
        "mark_code": mark_code,
        "keep_breaks": keep_breaks,
    }
    engine.tests["measured"] = numbers.is_number
    return engine


def mark_code(text: str) -> Markup:
    """`text` escaped, with what stands between two backticks as code."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))


def keep_breaks(text: str) -> Markup:
    """`text` escaped, with its line breaks kept."""
    return Markup("<br>").join(str(text).split("\n"))


def replace_unprintable(page: str) -> str:
    """`page` without control characters and lone surrogates, which HTML cannot hold."""
    return NOT_IN_HTML.sub("\ufffd", page).encode("utf-8", "replace").decode("utf-8")


def escape_markdown(value: Any) -> str:
    """Text from outside as Markdown that shows it and does nothing else, on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def as_yaml(value: Any) -> str:
    """Plain data as YAML in its own order; empty for nothing."""
    if not value:
        return ""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).strip()


def yaml_block(text: str) -> str:
    """YAML as a Markdown block whose fence is longer than any run of backticks in it; empty for
    nothing.
    """
    if not text:
        return ""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}yaml\n{text}\n{fence}"
