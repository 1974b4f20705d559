"""The shell's `report`: writes the page of a folder again from its results.json, and of a model the
model card too.
"""

from __future__ import annotations

from pathlib import Path

from ..base.errors import BadInput
from ..base.files import write_atomic
from ..quantization.evidence.comparison_page import comparison_page, is_comparison
from ..quantization.evidence.results import load_results
from .evidence import publish_pages


def report_folder(out: Path) -> list[Path]:
    """Write report.html in `out` again, and README.md unless it holds a comparison; return their
    paths.

    Raises BadInput when there is no results.json.
    """
    results = Path(out) / "results.json"
    if not results.is_file():
        raise BadInput(f"{results} does not exist; `featherweight quantize` writes it")
    content = load_results(results)
    if is_comparison(content):
        page = Path(out) / "report.html"
        write_atomic(page, comparison_page(content))
        return [page]
    return publish_pages(content, Path(out))
