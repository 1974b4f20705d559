"""The questions that a policy is trained on: prompts as ids, with what grades their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..base.errors import BadInput
from ..data.tasks import TaskExample


@dataclass(frozen=True)
class Question:
    """ids: the prompt, which ends where the answer starts. example: as its task reads it. bucket:
    of difficulty, from 0; it is fixed before the training.
    """

    ids: tuple[int, ...]
    example: TaskExample
    bucket: int = 0


def make_questions(
    examples: Sequence[TaskExample],
    encode: Callable[[TaskExample], Sequence[int]],
    bucket: Callable[[TaskExample], int] = lambda example: 0,
    *,
    context: int | None = None,
    max_tokens: int = 0,
) -> list[Question]:
    """The questions of `examples`.

    encode: the ids of an example's prompt. context: of the model; a prompt that leaves no room for
    `max_tokens` raises BadInput, which names it.
    """
    questions = []
    for index, example in enumerate(examples):
        ids = tuple(encode(example))
        if fault := prompt_fault(index, ids, context, max_tokens):
            raise BadInput(fault)
        number = bucket(example)
        if number < 0:
            raise BadInput(f"question {index} is in bucket {number}; buckets are numbered from 0")
        questions.append(Question(ids, example, number))
    return questions


def prompt_fault(
    index: int, ids: Sequence[int], context: int | None, max_tokens: int
) -> str | None:
    """Why question `index` cannot be asked: an empty prompt, or one that leaves no room for an
    answer of `max_tokens` in the model's `context`.
    """
    if not ids:
        return f"the prompt of question {index} is empty"
    if context is not None and len(ids) + max_tokens > context:
        return (
            f"question {index} has {len(ids)} tokens; with answers of {max_tokens} that is more "
            f"than the model's context of {context}. Use shorter answers, or leave it out"
        )
    return None


def num_buckets(questions: Sequence[Any]) -> int:
    """Buckets are numbered from 0."""
    return 1 + max((question.bucket for question in questions), default=0)
