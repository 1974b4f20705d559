"""The shell's `report`: the page and the model card again, from a folder's results.json."""

from __future__ import annotations

from pathlib import Path

from ..base.errors import BadInput
from .evidence import publish_pages


def report_folder(out: Path) -> list[Path]:
    """Rewrite report.html and README.md in `out`; returns them.

    Raises BadInput when there is no results.json.
    """
    results = Path(out) / "results.json"
    if not results.is_file():
        raise BadInput(f"{results} does not exist; `featherweight quantize` writes it")
    return publish_pages(results, Path(out))
