"""Reports of what quantization gained and cost: an offline HTML page, and the model card in the
folder of the weights.

Both are made from results.json alone. `report(results, out)` writes the page, `card(results)`
returns the text of the card. `sections(results)` and `verdict(results)` return the content of the
page, so that other code can render it.
"""

from __future__ import annotations

from .chapters import sections
from .model_card import card
from .page import render, report
from .verdict import missing_measurements, verdict

__all__ = ["card", "missing_measurements", "render", "report", "sections", "verdict"]
