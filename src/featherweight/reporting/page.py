"""`report`: results.json in, one HTML file out that needs nothing else: no network, no fonts, no
library.

The template holds the words and the order, `charts.py` and `anatomy.py` the pictures, `reading.py`
what follows from the numbers. Everything that comes from the results (model text above all) is
escaped by the template engine; control characters and lone surrogates, which HTML cannot hold, are
replaced. A content security policy in the page forbids any request and any script but the one it
carries, named by its hash.

The style is inlined; light, dark and print are one set of colours in CSS. Without JavaScript the
page is complete: the script only sorts the table of layers and folds it to its worst rows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..base.errors import BadInput
from ..base.files import write_atomic
from . import anatomy, charts, figures, reading
from .engine import TEMPLATES, as_yaml, environment

NOT_IN_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def report(results: Mapping[str, Any] | Path | str, out: Path | str) -> Path:
    """Write the report of `results` (the content of results.json, or its path) and return the
    file's path.

    `out` is a file that ends in .html, or a folder, which then gets `report.html`. Raises BadInput
    when results.json is missing or is not an object. What was not measured is left out or said to
    be missing.
    """
    out = Path(out)
    path = out if out.suffix == ".html" else out / "report.html"
    page = render(load_results(results))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page)
    return path


def load_results(results: Mapping[str, Any] | Path | str) -> Mapping[str, Any]:
    """The content of results.json; raises BadInput naming the file when there is none to be had."""
    if isinstance(results, Mapping):
        return results
    path = Path(results)
    path = path / "results.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; `fw quantize` and `fw evaluate` write it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise BadInput(f"{path} should hold an object, not a {type(content).__name__}")
    return content


def render(results: Mapping[str, Any]) -> str:
    """The page as text."""
    results = reading.tidy(results)
    script = _text("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            style=Markup(_text("report.css")),
            script=Markup(script),
            script_hash=digest,
            verdict=reading.verdict(results),
            formats=reading.formats(results),
            level=reading.level(results),
            shares=reading.ledger(results),
            layers=reading.worst_first(reading.records(results, "layers")),
            total_seconds=sum(
                s for s in reading.section(results, "seconds").values() if figures.is_number(s)
            ),
            recipe=as_yaml(results.get("recipe")),
            charts={
                "files": charts.files(results),
                "windows": charts.windows(results),
                "perplexities": charts.perplexities(results),
                "anatomy": anatomy.anatomy(results),
                "legend": anatomy.legend(results),
                "stages": charts.stages(results),
            },
        )
    )
    return NOT_IN_HTML.sub("\ufffd", page).encode("utf-8", "replace").decode("utf-8")


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
