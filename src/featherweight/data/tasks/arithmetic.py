"""Problems of arithmetic for a chat model, made from a seed: sums, products, common divisors,
expressions and legs of animals (`arithmetic_problems`). The size of a problem is its difficulty.

The prompt asks for a box, and the number is read as `stated_numbers` says. One problem in ten is in
the test split, by a hash of its question, so the splits share none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...base import spec
from ...base.errors import UsageError
from ...base.seeds import seed_of
from .arithmetic_problems import KINDS, MAX_SIZE
from .base import Kind, Task, TaskExample
from .overthinking import overthink
from .stated_numbers import number_grade

SPLITS = ("train", "test")
TEST_SHARE = 10  # one problem in so many


@dataclass(frozen=True)
class Arithmetic(Task):
    """count: the examples of each split; kinds: of the problems; smallest, largest: their sizes,
    from 1 to 8; all kinds and sizes are equally frequent. Raises UsageError for other kinds and
    sizes.
    """

    count: int = 200
    kinds: Sequence[str] = tuple(KINDS)
    smallest: int = 1
    largest: int = 5
    seed: int = 0
    name: ClassVar[str] = "arithmetic"
    kind: ClassVar[Kind] = "generation"
    max_tokens: ClassVar[int] = 1024
    is_message: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.kinds, str) or not self.kinds:
            raise UsageError(f"arithmetic: kinds={self.kinds!r} should be a list of names")
        for name in self.kinds:
            if name not in KINDS:
                raise UsageError(
                    f"arithmetic: no kind is called {name!r}; {spec.nearest(name, KINDS)}"
                )
        if not 1 <= self.smallest <= self.largest <= MAX_SIZE or self.count < 1:
            raise UsageError(
                f"arithmetic: {self.count} problems of sizes {self.smallest} to {self.largest}; at "
                f"least one problem, of sizes 1 to {MAX_SIZE}"
            )

    def examples(self, split: str = "test") -> Iterator[TaskExample]:
        if split not in SPLITS:
            raise UsageError(f"arithmetic has no split {split!r}; it has {', '.join(SPLITS)}")
        random = np.random.default_rng(seed_of("arithmetic", self.seed, split))
        num_examples = 0
        while num_examples < self.count:
            kind = self.kinds[num_examples % len(self.kinds)]
            num_sizes = self.largest - self.smallest + 1
            size = self.smallest + num_examples // len(self.kinds) % num_sizes
            problem = KINDS[kind](size, random)
            is_test = seed_of(self.seed, problem.question) % TEST_SHARE == 0
            if is_test == (split == "test"):
                num_examples += 1
                yield {
                    "kind": kind,
                    "size": size,
                    "question": problem.question,
                    "steps": list(problem.steps),
                    "answer": str(problem.answer),
                }

    def prompt(self, example: TaskExample) -> str:
        return f"{example['question']} Put the final answer in \\boxed{{}}."

    def choices(self, example: TaskExample) -> tuple[str, ...]:
        return ()

    def golds(self, example: TaskExample) -> tuple[str, ...]:
        return (f"\\boxed{{{example['answer']}}}", example["answer"])

    def grade(self, example: TaskExample, answer: str) -> float | None:
        return number_grade(example["answer"], answer)

    def difficulty(self, example: TaskExample) -> int | None:
        return int(example["size"])

    def trace(self, example: TaskExample, seed: int) -> str:
        random = np.random.default_rng(seed_of("trace", seed, example["question"]))
        solution = "\n".join(example["steps"])
        return overthink(solution, example["steps"], self.golds(example)[0], random)
