"""Chains of operations, a synthetic task in which thinking step by step is necessary and checking
again is mostly waste.

    prompt  "7 c a b :"         start 7, then the operations c, a and b
    answer  "#1 4 #2 0 #3 9 W #1 4 #2 0 #3 9 END 9"

Each of the twelve operations is a fixed random permutation of the ten digits. They do not commute,
so a chain must be computed one step after the other: 120 facts, ten possible answers, and the
length of the chain is the difficulty. A trace is a pass over the steps, then any number of passes
after "W" (wait), then "END" and the last digit. Words are separated by spaces, so a tokenizer with
one token a word (`WORDS`) reads it.

`trace` writes the overthinking that training for shorter answers starts from: the number of further
passes is independent of the length, so short chains are checked as often as long ones. A pass that
is not the last has errors of 1 to 3 % a step, each carried on to the end of its pass. A tenth of
the traces shows every second step only, a twentieth answers directly, so that shorter ways can be
found. Chains of three and more operations are in one split only, by a hash of the chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from ...base.errors import UsageError
from ...base.seeds import seed_of
from .base import Kind, Task, TaskExample

OPERATIONS = "abcdefghijkl"
NUM_DIGITS = 10
MAX_LENGTH = 10
WAIT, END = "W", "END"
STEPS = tuple(f"#{i}" for i in range(1, MAX_LENGTH + 1))
WORDS = (*map(str, range(NUM_DIGITS)), *OPERATIONS, ":", *STEPS, WAIT, END)
# The distribution of the number of passes after the first.
FURTHER_PASSES = (0.10, 0.25, 0.30, 0.20, 0.15)
SHORTCUT_SHARE, DIRECT_SHARE = 0.10, 0.05
ERROR_RATES = (0.01, 0.03)
SPLITS = ("train", "test")
TEST_SHARE = 10  # one chain in so many


@dataclass(frozen=True)
class OpChain(Task):
    """count: the examples of each split; shortest, longest: operations of a chain, all lengths
    equally often; seed: of the operations and the chains. Raises UsageError for lengths outside 1
    to 10.
    """

    count: int = 200
    shortest: int = 1
    longest: int = MAX_LENGTH
    seed: int = 0
    name: ClassVar[str] = "op_chain"
    kind: ClassVar[Kind] = "generation"
    stop: ClassVar[tuple[str, ...]] = ("\n",)
    think_end: ClassVar[str] = END

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest <= MAX_LENGTH or self.count < 1:
            raise UsageError(
                f"op_chain: {self.count} chains of {self.shortest} to {self.longest} operations; "
                f"at least one chain, of 1 to {MAX_LENGTH} operations"
            )

    def examples(self, split: str = "test") -> Iterator[TaskExample]:
        if split not in SPLITS:
            raise UsageError(f"op_chain has no split {split!r}; it has {', '.join(SPLITS)}")
        random = np.random.default_rng(seed_of("op_chain", self.seed, split))
        num_examples = 0
        while num_examples < self.count:
            length = self.shortest + num_examples % (self.longest - self.shortest + 1)
            start = int(random.integers(NUM_DIGITS))
            operations = "".join(random.choice(list(OPERATIONS), length))
            is_test = seed_of(self.seed, start, operations) % TEST_SHARE == 0
            if length < 3 or is_test == (split == "test"):
                num_examples += 1
                yield {"start": start, "operations": operations}

    def prompt(self, example: TaskExample) -> str:
        return " ".join([str(example["start"]), *example["operations"], ":"])

    def choices(self, example: TaskExample) -> tuple[str, ...]:
        return ()

    def golds(self, example: TaskExample) -> tuple[str, ...]:
        digits = self.digits(example)
        return (f"{_steps(digits)} {END} {digits[-1]}", f"{END} {digits[-1]}")

    def grade(self, example: TaskExample, answer: str) -> float | None:
        """1 when the answer has one END, and after it the right digit and nothing else. An answer
        that was cut before its end is wrong.
        """
        words = answer.split()
        return float(words.count(END) == 1 and words[-2:] == [END, str(self.digits(example)[-1])])

    def difficulty(self, example: TaskExample) -> int | None:
        """The number of operations."""
        return len(example["operations"])

    def digits(self, example: TaskExample) -> list[int]:
        """The digit after each operation."""
        digit, digits = example["start"], []
        for operation in example["operations"]:
            digit = _permutations(self.seed)[OPERATIONS.index(operation)][digit]
            digits.append(digit)
        return digits

    def trace(self, example: TaskExample, seed: int) -> str:
        """A way to think about `example`, with errors and checks; its answer is always right."""
        random = np.random.default_rng(seed_of("trace", seed, example["start"], *example.values()))
        digits = self.digits(example)
        shape = random.random()
        end = f"{END} {digits[-1]}"
        if shape < DIRECT_SHARE:
            return end
        stride = 2 if shape < DIRECT_SHARE + SHORTCUT_SHARE else 1
        num_further_passes = int(random.choice(len(FURTHER_PASSES), p=FURTHER_PASSES))
        early_passes = [
            _steps(self._with_errors(example, random), stride) for _ in range(num_further_passes)
        ]
        return f" {WAIT} ".join([*early_passes, _steps(digits, stride)]) + f" {end}"

    def _with_errors(self, example: TaskExample, random: np.random.Generator) -> list[int]:
        """The digits of a pass in which a step may be wrong."""
        rate = random.uniform(*ERROR_RATES)
        digit, digits = example["start"], []
        for operation in example["operations"]:
            digit = _permutations(self.seed)[OPERATIONS.index(operation)][digit]
            if random.random() < rate:
                digit = int((digit + random.integers(1, NUM_DIGITS)) % NUM_DIGITS)
            digits.append(digit)
        return digits


def _steps(digits: list[int], stride: int = 1) -> str:
    """One pass; with a stride of 2 it leaves out every second step, but never the last."""
    last = len(digits) - 1
    places = [i for i in range(len(digits)) if (last - i) % stride == 0]
    return " ".join(f"{STEPS[i]} {digits[i]}" for i in places)


@lru_cache(maxsize=8)
def _permutations(seed: int) -> tuple[tuple[int, ...], ...]:
    random = np.random.default_rng(seed_of("operations", seed))
    return tuple(tuple(random.permutation(NUM_DIGITS).tolist()) for _ in OPERATIONS)
