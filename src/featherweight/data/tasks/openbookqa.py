"""OpenBookQA (Mihaylov et al. 2018, arXiv:1809.02789): elementary science that takes one fact of a
book and common knowledge. Questions are often beginnings of sentences, so the prompt is the
question alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .base import TaskExample, text_at
from .multiple_choice import MultipleChoice, lettered_example


@dataclass(frozen=True)
class OpenBookQA(MultipleChoice):
    """The 500 questions of the test split. file: of {"query", "choices", "gold"}, or of
    {"question_stem", "choices": {"text", "label"}, "answerKey"}.
    """

    file: Path
    name: ClassVar[str] = "openbookqa"
    file_names: ClassVar[tuple[str, ...]] = ("openbookqa",)

    def read_query(self, query: str) -> str:
        return query

    def read_published(self, row: Mapping[str, Any]) -> TaskExample:
        return lettered_example(text_at(row, "question_stem"), row["choices"], row["answerKey"])

    def prompt(self, example: TaskExample) -> str:
        return str(example["question"])
