"""The shell's `report`: writes the page of a folder again from its results.json, and of a quantized
model the model card too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..base.errors import BadInput
from ..quantization.evidence.comparison_page import comparison_page, is_comparison
from ..quantization.evidence.results import load_results
from ..quantization.evidence.task_chapters import task_page
from ..reporting import write_page


def report_folder(out: Path) -> list[Path]:
    """Write report.html in `out` again, and README.md when it holds a quantized model; return their
    paths.

    Raises BadInput when there is no results.json.
    """
    results = Path(out) / "results.json"
    if not results.is_file():
        raise BadInput(f"{results} does not exist; `featherweight quantize` writes it")
    content = load_results(results)
    make_page = _find_page(content)
    if make_page is None:
        from .evidence import publish_pages  # imports torch

        return publish_pages(content, Path(out))
    return [write_page(make_page(content), Path(out))]


def _find_page(content: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], str] | None:
    """What makes the page of these results; None for those of a quantized model."""
    if is_comparison(content):
        return comparison_page
    if {"teacher", "student"} <= content.keys():
        from ..distillation.page import distillation_page  # imports torch

        return distillation_page
    # Tasks of a quantized model are among its other results.
    return task_page if "tasks" in content and "size" not in content else None
