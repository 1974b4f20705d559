"""LAMBADA (Paperno et al. 2016, arXiv:1606.06031; the variant of OpenAI): the last word of a
passage of a novel, which people guess from the whole passage but not from its last sentence.

A model is right when greedy decoding writes the word; the perplexity of the word is measured too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .base import FileTask, Kind, TaskExample, text_at


@dataclass(frozen=True)
class LAMBADA(FileTask):
    """The 5,153 passages of the test split. file: of {"context", "continuation"}, or of {"text"},
    whose last word is the continuation.
    """

    file: Path
    name: ClassVar[str] = "lambada"
    kind: ClassVar[Kind] = "continuation"
    file_names: ClassVar[tuple[str, ...]] = ("lambada", "lambada_openai")

    @property
    def files(self) -> Mapping[str, Path | None]:
        return {"test": self.file}

    def read_row(self, row: Mapping[str, Any]) -> TaskExample:
        if "text" in row:
            context, _, word = text_at(row, "text").rpartition(" ")
        else:
            context, word = text_at(row, "context"), text_at(row, "continuation").lstrip(" ")
        if not context.strip() or not word.strip():
            raise ValueError("a passage needs a context and a last word")
        return {"context": context, "word": word}

    def prompt(self, example: TaskExample) -> str:
        return str(example["context"])

    def choices(self, example: TaskExample) -> tuple[str, ...]:
        return (example["word"],)

    def golds(self, example: TaskExample) -> tuple[str, ...]:
        return (example["word"],)

    def grade(self, example: TaskExample, answer: str) -> float | None:
        return float(answer.strip() == example["word"].strip())
