"""The places of compared models in words, for the page and for the table in the shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def place_text(results: Mapping[str, Any], title: str, model: str) -> str:
    """The place of `model` by the measure `title`: "2", or "tie 1"; empty when it has none."""
    for measure in results["measures"]:
        for place in measure["places"]:
            if measure["title"] == title and place["model"] == model:
                return group_text(place)
    return ""


def group_text(place: Mapping[str, Any]) -> str:
    """A place as "2", or "tie 1" where models share it."""
    return f"tie {place['place']}" if place["tie"] else str(place["place"])
