"""From what TRL hands to a reward function on one process to the marks of all processes.

TRL calls reward functions on each process before it gathers anything, with G consecutive rows a
prompt over all processes in order of rank. So the rows of one prompt may be on two processes, and a
process cannot see it. Rows are therefore gathered first, and grouped afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ....base.errors import UsageError
from ....training import ranks
from ..answers import AnswerFormat, consecutive_groups, plain_text

Gather = Literal["auto", "never"]
GATHERS = ("auto", "never")


@dataclass(frozen=True)
class Columns:
    """Names of columns of the data set, None where there is no such column. number: of the prompt,
    for rules that remember prompts; bucket: of its difficulty, from 0.
    """

    number: str | None = None
    bucket: str | None = None


def read_rows(
    prompts: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    correct: Sequence[float | None],
    columns: Mapping[str, Sequence[Any]],
    names: Columns,
    answer_format: AnswerFormat,
) -> dict[str, list[Any]]:
    """The rows of this process, each entry a list. Raises UsageError for a column that is not
    there.
    """
    for name in (names.number, names.bucket):
        if name is not None and name not in columns:
            raise UsageError(
                f"the data set has no column {name!r}; it has {', '.join(sorted(columns))}"
            )
    count = len(prompts)
    return {
        "prompt": [plain_text(prompt) for prompt in prompts],
        "correct": list(correct),
        "number": list(columns[names.number]) if names.number else [None] * count,
        "bucket": list(columns[names.bucket]) if names.bucket else [0] * count,
        **answer_format.read(completion_ids),
    }


def gather_rows(rows: dict[str, list[Any]], gather: Gather) -> tuple[dict[str, list[Any]], slice]:
    """The rows of all processes in order of rank, and which of them are this process's."""
    if gather == "never" or ranks.num_ranks() == 1:
        return rows, slice(0, len(rows["prompt"]))
    parts = ranks.gather(rows)
    start = sum(len(part["prompt"]) for part in parts[: ranks.rank()])
    whole_batch = {name: [entry for part in parts for entry in part[name]] for name in rows}
    return whole_batch, slice(start, start + len(rows["prompt"]))


def number_groups(rows: dict[str, list[Any]], size: int) -> dict[str, list[Any]]:
    """`rows` with `group`: the number of the prompt where a column has it, else its place in the
    batch. Raises UsageError when the layout is not `size` consecutive rows a prompt.
    """
    places = consecutive_groups(rows["prompt"], size)
    numbers = rows["number"]
    return rows | {"group": places if None in numbers else [int(number) for number in numbers]}
