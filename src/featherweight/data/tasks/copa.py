"""COPA (Roemmele et al. 2011): which of two sentences is the cause, or the effect, of a premise.

As in lm-evaluation-harness, the premise loses its full stop, the choices begin with a small letter,
and two spaces stand before a choice: one is its own, one the delimiter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .base import TaskExample, text_at
from .multiple_choice import MultipleChoice, choice_example

CONNECTORS = {"cause": "because", "effect": "therefore"}
QUERY = re.compile(r"(.*?)[.,]? (because|therefore)\s*", re.DOTALL)


@dataclass(frozen=True)
class COPA(MultipleChoice):
    """The 100 premises of the validation split. file: of {"query", "choices", "gold"}, or of
    {"premise", "choice1", "choice2", "question" (cause or effect), "label"}.
    """

    file: Path
    name: ClassVar[str] = "copa"
    file_names: ClassVar[tuple[str, ...]] = ("copa",)

    def read_query(self, query: str) -> str:
        match = QUERY.fullmatch(query)
        if match is None:
            raise ValueError("the query should end with because or therefore")
        return f"{match[1]} {match[2]}"

    def read_published(self, row: Mapping[str, Any]) -> TaskExample:
        connector = CONNECTORS.get(row["question"])
        if connector is None:
            raise ValueError(f"question is {row['question']!r}, neither cause nor effect")
        premise = f"{text_at(row, 'premise').strip()[:-1]} {connector}"
        texts = [text_at(row, name) for name in ("choice1", "choice2")]
        return choice_example(premise, texts, row["label"])

    def prompt(self, example: TaskExample) -> str:
        return str(example["question"])

    def choices(self, example: TaskExample) -> tuple[str, ...]:
        return tuple(f" {text[0].lower()}{text[1:]}" for text in example["choices"])

    def golds(self, example: TaskExample) -> tuple[str, ...]:
        return (self.choices(example)[example["gold"]],)
