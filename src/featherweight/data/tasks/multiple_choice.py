"""What the tasks with choices have in common: the model's answer is one of the choices, and one of
them is right.

An example is {"question": text, "choices": list of texts, "gold": index of the right one}. Two
forms of rows are read: the short one of several evaluation suites, {"query", "choices", "gold"},
and that of the data set as it was published, which each task reads itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .base import FileTask, Kind, TaskExample, text_at


class MultipleChoice(FileTask):
    """Abstract base of the tasks with choices, whose only split is a file `file`."""

    kind: ClassVar[Kind] = "choices"
    file: Path

    @abstractmethod
    def read_query(self, query: str) -> str:
        """The question in the `query` of a short row."""

    @abstractmethod
    def read_published(self, row: Mapping[str, Any]) -> TaskExample:
        """The example of a row as the data set was published; raises as `read_row` does."""

    @property
    def files(self) -> Mapping[str, Path | None]:
        return {"test": self.file}

    def read_row(self, row: Mapping[str, Any]) -> TaskExample:
        if "query" not in row:
            return self.read_published(row)
        return choice_example(self.read_query(text_at(row, "query")), row["choices"], row["gold"])

    def choices(self, example: TaskExample) -> tuple[str, ...]:
        return tuple(example["choices"])

    def golds(self, example: TaskExample) -> tuple[str, ...]:
        return (example["choices"][example["gold"]],)

    def grade(self, example: TaskExample, answer: str) -> float | None:
        return float(answer in self.golds(example))


def choice_example(question: str, choices: Any, gold: Any) -> TaskExample:
    """The example, checked. Raises ValueError for choices or an answer that cannot be."""
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(choice, str) and choice for choice in choices)
    ):
        raise ValueError("choices should be a list of at least two texts")
    if type(gold) is not int or not 0 <= gold < len(choices):
        raise ValueError(
            f"the answer should be the index of one of {len(choices)} choices, and is {gold!r}"
        )
    return {"question": question, "choices": choices, "gold": gold}


def lettered_example(question: str, choices: Any, answer: Any) -> TaskExample:
    """The example of a row with "choices": {"text": [...], "label": [...]} and the label of the
    right one. Raises ValueError as `choice_example`.
    """
    labels = [str(label) for label in choices["label"]]
    gold = labels.index(answer.strip()) if answer.strip() in labels else answer
    return choice_example(question, list(choices["text"]), gold)
