"""Runs a task: one row for each example, as plain data that is kept and compared later.

A row has the index of its example, the scores by metric (None for an ungraded answer, with the
reason), and what led to them:

- choices: `acc` (is the most likely choice right), `acc_norm` and `acc_bytes` (the same with
  log-likelihoods divided by the characters, or the bytes, of the choice), and `logprobs`;
- continuation: `acc` (would greedy decoding write it) and `logprob`;
- generation: `acc`, the grade of the greedy `answer`, with its number of tokens and its finish.

These are the definitions of lm-evaluation-harness (`multiple_choice`, `loglikelihood`,
`generate_until`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from ..base.errors import BadInput, UsageError
from ..base.sampling import Sampling
from ..data.tasks import Grade, Grader, Task, TaskExample
from ..inference.engine import Engine
from ..inference.text.tokenizer import ChatTokenizer
from .answers import generate_answers
from .likelihood import Likelihood, LikelihoodScorer
from .task_prompts import PromptWriter

Row = dict[str, Any]


def task_rows(
    task: Task,
    examples: Sequence[TaskExample],
    engine: Engine,
    tokenizer: ChatTokenizer,
    *,
    chat: bool = False,
    skip: Collection[int] = (),
) -> Iterator[Row]:
    """The rows of `examples` in order, without those whose index is in `skip`.

    Args: engine and its tokenizer; chat, whether prompts go through the chat template. Raises
    UsageError for `chat` without a template, BadInput when the model gives numbers that are not
    finite.
    """
    if chat and not tokenizer.has_template:
        raise UsageError("this model has no chat template; evaluate it with --raw")
    writer = PromptWriter(tokenizer, task, chat)
    indices = [index for index in range(len(examples)) if index not in skip]
    run = _generated_rows if task.kind == "generation" else _likelihood_rows
    with Grader(task) as grader:
        yield from run(writer, examples, indices, engine, grader)


def _likelihood_rows(
    writer: PromptWriter,
    examples: Sequence[TaskExample],
    indices: Sequence[int],
    engine: Engine,
    grader: Grader,
) -> Iterator[Row]:
    score = _score_choices if writer.task.kind == "choices" else _score_continuation
    with LikelihoodScorer(engine) as scorer:
        for index in indices:
            example = examples[index]
            try:
                likelihoods = [scorer.score(*pair) for pair in writer.pairs(example)]
            except BadInput as error:
                raise BadInput(f"{writer.task.name}, example {index}: {error}") from error
            yield {"index": index} | score(writer.task, example, likelihoods, grader)


def _score_choices(
    task: Task, example: TaskExample, likelihoods: list[Likelihood], grader: Grader
) -> Row:
    choices = task.choices(example)
    logprobs = np.array([likelihood.logprob for likelihood in likelihoods])
    lengths = {
        "acc": np.ones(len(choices)),
        "acc_norm": np.array([len(choice) for choice in choices]),
        "acc_bytes": np.array([len(choice.encode()) for choice in choices]),
    }
    best = {metric: int(np.argmax(logprobs / length)) for metric, length in lengths.items()}
    grades = {metric: grader(example, choices[index]) for metric, index in best.items()}
    row = _scores(grades) | {"answer": choices[best["acc"]], "logprobs": logprobs.tolist()}
    return row | _truncation(any(likelihood.is_truncated for likelihood in likelihoods))


def _score_continuation(
    task: Task, example: TaskExample, likelihoods: list[Likelihood], grader: Grader
) -> Row:
    (likelihood,), (choice,) = likelihoods, task.choices(example)
    grade = grader(example, choice) if likelihood.is_greedy else Grade(0.0)
    row = _scores({"acc": grade}) | {"logprob": likelihood.logprob}
    return row | _truncation(likelihood.is_truncated)


def _generated_rows(
    writer: PromptWriter,
    examples: Sequence[TaskExample],
    indices: Sequence[int],
    engine: Engine,
    grader: Grader,
) -> Iterator[Row]:
    task = writer.task
    prompts = [writer.encode(writer.text(examples[index])) for index in indices]
    sampling = Sampling(task.max_tokens, temperature=0, stop=task.stop)
    answers = generate_answers(engine, writer.tokenizer, prompts, [sampling] * len(prompts))
    for index, answer in zip(indices, answers, strict=True):
        row: Row = _scores({"acc": grader(examples[index], answer.text)})
        row |= {"answer": answer.text, "num_tokens": answer.num_tokens, "finish": answer.finish}
        yield {"index": index} | row | _truncation(answer.is_truncated)


def _scores(grades: dict[str, Grade]) -> Row:
    """The scores by metric, and the reason when an answer is ungraded."""
    reasons = [grade.reason for grade in grades.values() if grade.score is None]
    scores = {metric: grade.score for metric, grade in grades.items()}
    return {"scores": scores} | ({"ungraded": reasons[0]} if reasons else {})


def _truncation(is_truncated: bool) -> Row:
    return {"truncated": True} if is_truncated else {}
