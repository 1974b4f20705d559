"""The shell's `report`: writes the page and the model card again from the results.json of a
folder.
"""

from __future__ import annotations

from pathlib import Path

from ..base.errors import BadInput
from .evidence import publish_pages


def report_folder(out: Path) -> list[Path]:
    """Write report.html and README.md in `out` again, and return their paths.

    Raises BadInput when there is no results.json.
    """
    results = Path(out) / "results.json"
    if not results.is_file():
        raise BadInput(f"{results} does not exist; `featherweight quantize` writes it")
    return publish_pages(results, Path(out))
