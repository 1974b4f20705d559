"""CommonsenseQA (Talmor et al. 2019, arXiv:1811.00937): questions about everyday concepts. The
prompt lists the choices, and the model compares their letters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, ClassVar

from .base import TaskExample, text_at
from .multiple_choice import MultipleChoice, lettered_example

QUERY = re.compile(r"Question: (.*?)\n(?:Choices:\n)?(A\. .*)\nAnswer:\s*", re.DOTALL)


@dataclass(frozen=True)
class CommonsenseQA(MultipleChoice):
    """The 1,221 questions of the validation split. file: of {"query" (with the lettered choices),
    "choices" (the letters), "gold"}, or of {"question", "choices": {"text", "label"}, "answerKey"}.
    """

    file: Path
    name: ClassVar[str] = "commonsense_qa"
    file_names: ClassVar[tuple[str, ...]] = ("commonsense_qa",)

    def read_query(self, query: str) -> str:
        match = QUERY.fullmatch(query)
        if match is None:
            raise ValueError('the query should read "Question: ...", "A. ...", ..., "Answer:"')
        return f"{match[1].strip()}\n{match[2]}"

    def read_published(self, row: Mapping[str, Any]) -> TaskExample:
        example = lettered_example(text_at(row, "question"), row["choices"], row["answerKey"])
        letters = list(ascii_uppercase[: len(example["choices"])])
        lines = [f"{a}. {text}" for a, text in zip(letters, example["choices"], strict=True)]
        question = "\n".join([example["question"].strip(), *lines])
        return {**example, "question": question, "choices": letters}

    def prompt(self, example: TaskExample) -> str:
        return f"Question: {example['question']}\nAnswer:"
