"""What the results say, for people: one offline HTML page, and the model card that travels with the
weights.

Both read results.json and nothing else. `report(results, out)` writes the page, `card(results)`
gives the card's text.
"""

from __future__ import annotations

from .model_card import card
from .page import report

__all__ = ["card", "report"]
