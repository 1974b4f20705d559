"""PIQA (Bisk et al. 2020, arXiv:1911.11641): which of two ways reaches a goal of daily life."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .base import TaskExample, text_at
from .multiple_choice import MultipleChoice, choice_example

PREFIX = "Question: "


@dataclass(frozen=True)
class PIQA(MultipleChoice):
    """The 1,838 goals of the validation split. file: of {"query", "choices", "gold"}, or of
    {"goal", "sol1", "sol2", "label"}.
    """

    file: Path
    name: ClassVar[str] = "piqa"
    file_names: ClassVar[tuple[str, ...]] = ("piqa",)

    def read_query(self, query: str) -> str:
        return query.removeprefix(PREFIX).removesuffix("\n")

    def read_published(self, row: Mapping[str, Any]) -> TaskExample:
        return choice_example(text_at(row, "goal"), [row["sol1"], row["sol2"]], row["label"])

    def prompt(self, example: TaskExample) -> str:
        return f"{PREFIX}{example['question']}\nAnswer:"
