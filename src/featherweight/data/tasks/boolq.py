"""BoolQ (Clark et al. 2019, arXiv:1905.10044): yes/no questions that people typed into a search
engine, each with a passage of Wikipedia that answers it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .base import TaskExample, text_at
from .multiple_choice import MultipleChoice, choice_example

QUERY = re.compile(r"Passage: (.*)\nQuestion: (.*)\?\s*", re.DOTALL)


@dataclass(frozen=True)
class BoolQ(MultipleChoice):
    """The 3,270 questions of the validation split. file: of {"query", "choices", "gold"}, or of
    {"passage", "question", "label" (1 is yes)}.
    """

    file: Path
    name: ClassVar[str] = "boolq"
    file_names: ClassVar[tuple[str, ...]] = ("boolq",)

    def read_query(self, query: str) -> str:
        match = QUERY.fullmatch(query)
        if match is None:
            raise ValueError('the query should read "Passage: ...", "Question: ...?"')
        return f"{match[1]}\nQuestion: {match[2]}"

    def read_published(self, row: Mapping[str, Any]) -> TaskExample:
        question = f"{text_at(row, 'passage')}\nQuestion: {text_at(row, 'question')}"
        label = row["label"] if "label" in row else row["answer"]
        return choice_example(question, ["no", "yes"], int(label) if label in (0, 1) else label)

    def prompt(self, example: TaskExample) -> str:
        return f"{example['question']}?\nAnswer:"
