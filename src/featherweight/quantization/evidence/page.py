"""`report`: writes the page of a quantized model from its results.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import reporting
from .chapters import key_figures, sections
from .layers import formats
from .results import load_results, tidy
from .verdict import verdict


def report(results: Mapping[str, Any] | Path | str, out: Path | str) -> Path:
    """Write the report of `results` (the content of results.json, or its path) and return the
    file's path.

    `out` is a file that ends in .html, or a folder, which then gets `report.html`. Measurements
    that the results lack are left out or listed as missing. Raises BadInput when results.json is
    missing or is not an object.
    """
    return reporting.write_page(render(load_results(results)), out)


def render(results: Mapping[str, Any]) -> str:
    """The page as HTML text."""
    results = tidy(results)
    name = str(results["model"].get("name") or "")
    version = results["versions"].get("featherweight")
    return reporting.render(
        name or "Model",
        verdict(results),
        sections(results),
        subtitle=formats(results),
        figures=key_figures(results),
        window_title=f"{name or 'Model'}: what it cost",
        footer=f"Made from results.json by featherweight{f' {version}' if version else ''}.",
    )
