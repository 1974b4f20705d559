"""ARC (Clark et al. 2018, arXiv:1803.05457): science questions of American schools with three to
five choices. The challenge set holds those that retrieval and word co-occurrence answer wrongly.

The choices are compared as text that continues "Answer:", not as letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .base import TaskExample, text_at
from .multiple_choice import MultipleChoice, lettered_example

PREFIX = "Question: "


class _ARC(MultipleChoice):
    """Abstract base of the two sets, which differ in their file only."""

    def read_query(self, query: str) -> str:
        return query.removeprefix(PREFIX)

    def read_published(self, row: Mapping[str, Any]) -> TaskExample:
        return lettered_example(text_at(row, "question"), row["choices"], row["answerKey"])

    def prompt(self, example: TaskExample) -> str:
        return f"{PREFIX}{example['question']}\nAnswer:"


@dataclass(frozen=True)
class ARCEasy(_ARC):
    """The 2,376 easy questions of the test split. file: of {"query", "choices", "gold"}, or of
    {"question", "choices": {"text", "label"}, "answerKey"}.
    """

    file: Path
    name: ClassVar[str] = "arc_easy"
    file_names: ClassVar[tuple[str, ...]] = ("arc_easy",)


@dataclass(frozen=True)
class ARCChallenge(_ARC):
    """The 1,172 hard questions of the test split; the file as for `ARCEasy`."""

    file: Path
    name: ClassVar[str] = "arc_challenge"
    file_names: ClassVar[tuple[str, ...]] = ("arc_challenge",)
