"""What a task is: questions with graders. It knows no engine and no tokenizer.

A task has examples, which are plain mappings, and says of each the prompt, the choices, and how
good an answer is. There are three kinds, by what the model does:

- *choices*: the model compares the likelihoods of the choices; its answer is the best choice;
- *continuation*: the only choice is right when greedy decoding would write it;
- *generation*: the model writes an answer, up to `stop` or `max_tokens`.

Prompts, choices and scores follow lm-evaluation-harness, so that numbers on the same examples are
equal to its own. Files are JSON lines, gzipped or not, and nothing is downloaded.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from ...base.errors import BadInput, Unsupported, UsageError
from ..user_files import read_text_file

Kind = Literal["choices", "continuation", "generation"]
# A question as its task reads it from a row of the file. What it holds is the task's own affair.
TaskExample = Mapping[str, Any]


class Task(ABC):
    """Abstract base of the tasks."""

    name: ClassVar[str]  # in the shell, and of its file in a folder
    kind: ClassVar[Kind]
    file_names: ClassVar[tuple[str, ...]] = ()  # without ending; none: it makes its own examples
    delimiter: ClassVar[str] = " "  # between the prompt and a choice
    stop: ClassVar[tuple[str, ...]] = ()  # generation ends before the first of these
    max_tokens: ClassVar[int] = 256  # of the longest answer
    # Whether the prompt is a message to an assistant, which goes through the chat template.
    is_message: ClassVar[bool] = False
    think_end: ClassVar[str] = "</think>"  # what a model writes when it has thought enough
    grade_seconds: ClassVar[float] = 10.0  # a grader that takes longer leaves the answer ungraded

    @abstractmethod
    def examples(self, split: str = "test") -> Iterator[TaskExample]:
        """The examples of a split in order.

        Raises BadInput, which names file and line, for a row that is no example or has no answer,
        UsageError for a split that the task does not have.
        """

    @abstractmethod
    def prompt(self, example: TaskExample) -> str:
        """The text before the answer."""

    @abstractmethod
    def choices(self, example: TaskExample) -> tuple[str, ...]:
        """The answers to compare by likelihood; none for a task that generates."""

    @abstractmethod
    def golds(self, example: TaskExample) -> tuple[str, ...]:
        """Right answers, as far as the example has any."""

    @abstractmethod
    def grade(self, example: TaskExample, answer: str) -> float | None:
        """How good `answer` is, from 0 to 1; None when it cannot be said."""

    def difficulty(self, example: TaskExample) -> int | None:
        """How many steps a right answer needs, in the task's own unit; None when it is unknown."""
        return None

    def trace(self, example: TaskExample, seed: int) -> str:
        """A right answer that thinks longer than necessary, for training. Its redundancy is
        independent of the difficulty.

        Raises Unsupported for a task that has no such answers, BadInput for an example without a
        worked solution.
        """
        raise Unsupported(f"{self.name} has no worked solutions to train on")


class FileTask(Task):
    """Abstract base of the tasks whose examples are the rows of a file of JSON lines."""

    @property
    @abstractmethod
    def files(self) -> Mapping[str, Path | None]:
        """The file of each split; None for a split whose file was not given."""

    @abstractmethod
    def read_row(self, row: Mapping[str, Any]) -> TaskExample:
        """The example of one row.

        Raises KeyError, TypeError or ValueError for a row that is none.
        """

    def examples(self, split: str = "test") -> Iterator[TaskExample]:
        if split not in self.files:
            raise UsageError(f"{self.name} has no split {split!r}; it has {', '.join(self.files)}")
        path = self.files[split]
        if path is None:
            raise UsageError(f"{self.name} needs a file for the split {split!r}")
        num_examples = 0
        for number, row in read_rows(path):
            try:
                example = self.read_row(row)
            except KeyError as error:
                raise BadInput(f"{path}, line {number}: no {error} for {self.name}") from error
            except (TypeError, ValueError, AttributeError) as error:
                raise BadInput(f"{path}, line {number}: {error}") from error
            num_examples += 1
            yield example
        if not num_examples:
            raise BadInput(f"task file {path} holds no examples")


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file of JSON lines with their line numbers; empty lines are left out.

    Raises BadInput for a file that cannot be read and a line that is no JSON object.
    """
    for number, line in enumerate(read_text_file(path, "task file").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise BadInput(f"{path}, line {number}: expected a JSON object")
        yield number, row


def text_at(row: Mapping[str, Any], key: str) -> str:
    """The text at `key`. Raises KeyError when there is none, ValueError for anything else."""
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} should be text, and is {str(value)[:40]!r}")
    return value
