"""What quantization gained and cost, for people: one offline HTML page, and the model card that
travels with the weights.

Both read results.json and nothing else. `report(results, out)` writes the page, `card(results)`
gives the card's text; `sections(results)` and `verdict(results)` are the page's content for others
to render.
"""

from __future__ import annotations

from .chapters import sections
from .model_card import card
from .page import render, report
from .verdict import missing_measurements, verdict

__all__ = ["card", "missing_measurements", "render", "report", "sections", "verdict"]
