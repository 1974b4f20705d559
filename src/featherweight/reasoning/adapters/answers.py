"""What every adapter reads from an answer: its mark, its length from token ids, its group."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...base.errors import UsageError
from ...evaluation.repetition import is_loop
from ..cost import Cost, Ids, count_axes
from ..marks import Marks

Grade = Callable[[Mapping[str, Any], str], float | None]


@dataclass(frozen=True)
class AnswerFormat:
    """How an answer is read.

    think_end: ids that end a thought. end_ids: the tokens that end an answer; one that ends
    otherwise was cut, and is wrong. limit: the longest answer, in tokens. cost: which tokens count
    as length. Raises UsageError for settings that cannot work.
    """

    think_end: tuple[int, ...]
    end_ids: tuple[int, ...]
    limit: int
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        if not self.think_end or not self.end_ids or self.limit < 1:
            raise UsageError(
                f"think_end={self.think_end} and end_ids={self.end_ids} need at least one id, "
                f"limit={self.limit} is at least 1"
            )

    def read(self, answers: Sequence[Ids]) -> dict[str, list[Any]]:
        """`lengths`, `is_cut` and `repeats` of each of `answers` (ids with the end token)."""
        ids = [list(answer) for answer in answers]
        return {
            "lengths": self.cost(count_axes(ids, self.think_end)).tolist(),
            "is_cut": [not answer or answer[-1] not in self.end_ids for answer in ids],
            "repeats": [is_loop(answer) for answer in ids],
        }

    def marks(self, rows: Mapping[str, Sequence[Any]], step: int) -> Marks:
        """The marks of `rows`: `correct` (None: ungraded), `group`, `bucket`, and what `read`
        returns. An answer that was cut is wrong whatever its grade.
        """
        pairs = zip(rows["correct"], rows["is_cut"], strict=True)
        scores = [
            0.0 if is_cut else float("nan") if score is None else float(score)
            for score, is_cut in pairs
        ]
        return Marks(
            torch.tensor(scores, dtype=torch.float64),
            torch.tensor(rows["lengths"], dtype=torch.float64),
            torch.tensor(rows["group"], dtype=torch.int64),
            self.limit,
            bucket=torch.tensor(rows["bucket"], dtype=torch.int64),
            is_cut=torch.tensor(rows["is_cut"], dtype=torch.bool),
            repeats=torch.tensor(rows["repeats"], dtype=torch.bool),
            step=step,
        )


def grades(
    grade: Grade, examples: Iterable[Mapping[str, Any]], texts: Iterable[str]
) -> list[float | None]:
    """The grade of each text; None, with a warning, where the grader raised an error.

    Raises UsageError when it raised one for every text: then the grader is wrong, not the answers.
    """
    scores: list[float | None] = []
    errors: list[Exception] = []
    for example, text in zip(examples, texts, strict=True):
        try:
            scores.append(grade(example, text))
        except Exception as error:  # of the user's code, so any class
            errors.append(error)
            scores.append(None)
    if errors and len(errors) == len(scores):
        raise UsageError(
            f"the grader failed for all {len(scores)} answers, first with {errors[0]!r}; it is "
            "called with the columns of the data set and the text of an answer"
        ) from errors[0]
    if errors:
        warnings.warn(
            f"the grader failed for {len(errors)} of {len(scores)} answers, which take no part in "
            f"the step; the first error: {errors[0]!r}",
            stacklevel=2,
        )
    return scores


def plain_text(content: Any) -> str:
    """The text of a prompt or an answer: of a string, or of messages in the format of chats."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, Mapping):
        return plain_text(content.get("content", content.get("text")))
    if isinstance(content, Sequence):
        return "\n".join(plain_text(part) for part in content)
    raise UsageError(f"no text can be read from a {type(content).__name__}")


def consecutive_groups(prompts: Sequence[str], size: int) -> list[int]:
    """The group of each row when the answers to one prompt are `size` consecutive rows.

    Raises UsageError for another layout, since rewards of a wrong group teach nonsense.
    """
    if len(prompts) % size:
        raise UsageError(
            f"{len(prompts)} rows are no whole groups of num_generations={size}, so a group is "
            f"split; take a multiple of {size}, such as {-(-len(prompts) // size) * size}"
        )
    for start in range(0, len(prompts), size):
        block = prompts[start : start + size]
        if any(prompt != block[0] for prompt in block):
            raise UsageError(
                f"rows {start} to {start + size - 1} should be the {size} answers to one prompt, "
                "but their prompts differ: the rows are interleaved, or num_generations is not "
                "the trainer's; keep the trainer's own order of rows"
            )
    return [row // size for row in range(len(prompts))]
