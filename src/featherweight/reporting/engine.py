"""The template engine of page and card, with this room's ways of writing numbers and of defusing
text.

HTML templates escape everything that is put into them. Markdown has no such switch: there the
filter `plain` is applied by hand to each text from outside, and YAML goes into a fence that it
cannot close.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from . import figures, reading

TEMPLATES = Path(__file__).parent / "templates"
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#])")


@cache
def environment() -> Environment:
    """The engine; a missing value is empty however deep it was looked up, and a test `measured`
    tells numbers.
    """
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "number": figures.number,
        "fixed": figures.fixed,
        "count": figures.count,
        "percent": figures.percent,
        "part": figures.part,
        "size": figures.size,
        "duration": figures.duration,
        "span": figures.span,
        "bits_per_weight": reading.bits_per_weight,
        "solved_by": reading.solved_by,
        "plain": plain,
    }
    made.tests["measured"] = figures.is_number
    return made


def plain(value: Any) -> str:
    """Text from outside as Markdown that shows it and does nothing else, on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def as_yaml(value: Any) -> str:
    """Plain data as YAML in its own order; empty for nothing."""
    return (
        yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).strip()
        if value
        else ""
    )


def fenced(text: str) -> str:
    """A block of YAML whose fence is longer than any run of backticks in it; empty for nothing."""
    if not text:
        return ""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}yaml\n{text}\n{fence}"
