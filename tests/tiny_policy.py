"""A policy so small that a step of reinforcement takes milliseconds, with questions, an end token
that it often draws, and a grader in the same process.

Eight of the 37 tokens end a text and an answer is right when it starts with an operation, so about
a quarter of the answers of random weights are right, a quarter is cut, and most groups have right
and wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from featherweight.data.small_tokenizers import word_tokenizer
from featherweight.data.tasks import Grade, Grader, OpChain, Task, TaskExample
from featherweight.data.tasks.grading import grade_once
from featherweight.data.tasks.op_chain import OPERATIONS, WORDS
from featherweight.models.scratch import scratch_model
from featherweight.reasoning.aggregates import Aggregate
from featherweight.reasoning.cost import Cost
from featherweight.reasoning.loop import Recipe
from featherweight.reasoning.marking import Marking
from featherweight.reasoning.methods import METHODS, Method
from featherweight.reasoning.questions import Question, make_questions
from featherweight.reasoning.samplers import LocalSampler

VOCABULARY = len(WORDS) + 2
END_IDS = range(8)  # end of text, unknown, and six digits
LIMIT = 6
RECIPE = Recipe(
    steps=4, prompts=4, group=4, lr=1e-2, max_tokens=LIMIT, save_every=2, seed=3, bf16=False
)


class FirstWord(OpChain):
    """Right when the first word is an operation."""

    def grade(self, example: TaskExample, answer: str) -> float | None:
        return float(answer[:1] in OPERATIONS) if answer else 0.0


class PlainGrader(Grader):
    """Grades without a process of its own."""

    def __call__(self, example: TaskExample, answer: str) -> Grade:
        return grade_once(self.task, example, answer)


def task(kind: Callable[..., Task] = FirstWord) -> Task:
    return kind(count=12, longest=4)


def questions(count: int = 12) -> list[Question]:
    """Prompts of three to six tokens in two buckets."""
    words = word_tokenizer(WORDS)
    chains = OpChain(count=count, longest=4)
    return make_questions(
        list(chains.examples("train")),
        lambda example: words.encode(chains.prompt(example)),
        lambda example: (len(example["operations"]) - 1) // 2,
    )


def policy(seed: int = 0, **shape: Any) -> Any:
    return scratch_model(VOCABULARY, 16, 1, 2, context=64, seed=seed, **shape)


def sampler(model: Any) -> LocalSampler:
    return LocalSampler(model, END_IDS)


def marking(kind: Callable[..., Task] = FirstWord, cost: Cost | None = None) -> Marking:
    words = word_tokenizer(WORDS)
    return Marking(
        PlainGrader(task(kind)),
        words.decode,
        tuple(words.encode("END")),
        LIMIT,
        cost or Cost(thinking=1, answer=1),
    )


def method(name: str = "dr_grpo", aggregate: Aggregate | None = None) -> Method:
    """Without the KL that GRPO has."""
    one = replace(METHODS[name](LIMIT), kl=0.0)
    return one if aggregate is None else replace(one, aggregate=aggregate)
