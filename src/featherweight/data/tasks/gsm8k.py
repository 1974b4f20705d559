"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): word problems of grade school, two to eight steps of
arithmetic; the worked answer ends with "#### NUMBER".

Two rules read the number of an answer as lm-evaluation-harness does: *flexible* takes the last
number anywhere, *strict* the first that follows "####". The numbers are compared as texts without
"$", "," and a final full stop, so 18 and 18.00 are different. Two more are for models that think,
and refuse forms that gain without being right: *number* is that of `stated_numbers`, *math_verify*
that of the package.

A worked answer as published shows each calculation as "<<48/2=24>>". Their number is the difficulty
of the problem, and `trace` checks them again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...base import spec
from ...base.errors import BadInput, UsageError
from ...base.seeds import seed_of
from .base import FileTask, Kind, TaskExample, text_at
from .math_verified import check_math_verify, math_verify_grade
from .overthinking import overthink
from .stated_numbers import number_grade

FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
MARK = "#### "
CALCULATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
RULES = ("flexible", "strict", "number", "math_verify")


@dataclass(frozen=True)
class GSM8K(FileTask):
    """The 1,319 problems of the test split. file, train_file: of {"question", "answer"}; shots, how
    many solved problems of the train file, its first ones, stand before each question; rule,
    "flexible", "strict", "number" or "math_verify". Raises UsageError for other rules, a package
    that is not installed, and shots without a train file.
    """

    file: Path
    train_file: Path | None = None
    shots: int = 0
    rule: str = "flexible"
    name: ClassVar[str] = "gsm8k"
    kind: ClassVar[Kind] = "generation"
    file_names: ClassVar[tuple[str, ...]] = ("gsm8k", "gsm8k_test")
    stop: ClassVar[tuple[str, ...]] = ("Question:", "</s>", "<|im_end|>")

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UsageError(
                f"gsm8k: rule={self.rule!r} should be one of {', '.join(RULES)}; "
                f"{spec.nearest(self.rule, RULES)}"
            )
        if self.rule == "math_verify":
            check_math_verify()
        if self.shots < 0 or (self.shots and self.train_file is None):
            raise UsageError(f"gsm8k: shots={self.shots} needs a train_file of solved problems")

    @property
    def files(self) -> Mapping[str, Path | None]:
        return {"test": self.file, "train": self.train_file}

    def read_row(self, row: Mapping[str, Any]) -> TaskExample:
        answer = text_at(row, "answer")
        if not STRICT.search(answer):
            raise ValueError('the answer does not end with "#### NUMBER"')
        return {"question": text_at(row, "question"), "answer": answer}

    def prompt(self, example: TaskExample) -> str:
        return f"{self._solved_problems}Question: {example['question']}\nAnswer:"

    def choices(self, example: TaskExample) -> tuple[str, ...]:
        return ()

    def golds(self, example: TaskExample) -> tuple[str, ...]:
        return (example["answer"],)

    def grade(self, example: TaskExample, answer: str) -> float | None:
        if self.rule in ("number", "math_verify"):
            gold = example["answer"].rpartition(MARK)[2]
            return (number_grade if self.rule == "number" else math_verify_grade)(gold, answer)
        number = _first(STRICT, answer) if self.rule == "strict" else _last(FLEXIBLE, answer)
        return float(number is not None and _digits(number) == _digits(example["answer"]))

    def difficulty(self, example: TaskExample) -> int | None:
        """The number of calculations in the worked answer; None when it shows none."""
        return len(CALCULATION.findall(example["answer"])) or None

    def trace(self, example: TaskExample, seed: int) -> str:
        solution, _, number = example["answer"].rpartition(MARK)
        steps = [
            f"{expression.strip()} = {number}"
            for expression, number in CALCULATION.findall(solution)
        ]
        if not steps:
            raise BadInput(
                f"the worked answer of {example['question'][:60]!r} shows no <<calculations>> to "
                "check; use the files of openai/grade-school-math"
            )
        random = np.random.default_rng(seed_of("trace", seed, example["question"]))
        plain_solution = CALCULATION.sub("", solution).strip()
        return overthink(plain_solution, steps, f"{MARK}{number.strip()}", random)

    @cached_property
    def _solved_problems(self) -> str:
        demonstrations: Iterator[TaskExample] = islice(self.examples("train"), self.shots)
        if not self.shots:
            return ""
        return "".join(
            f"Question: {e['question']}\nAnswer: {e['answer']}\n\n" for e in demonstrations
        )


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return None if match is None else match[1].strip()


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    matches = list(pattern.finditer(text))
    return matches[-1][0].strip() if matches else None


def _digits(number: str) -> str:
    """What is compared: without thousands' commas, dollars, all before "#### ", a full stop."""
    text = number.replace(",", "").replace("$", "").rpartition(MARK)[2]
    return re.sub(r"\.$", "", text).lower()
