"""The data sets of the package reasoning-gym (Stojanovski et al. 2025, arXiv:2505.24760), which
makes its problems from a seed and scores their answers.

The answer is what stands in the one `\\boxed{...}` after the thinking, or all that stands there
when nothing is boxed. The package's scores between 0 and 1 also pay for wrong answers that hold the
right one somewhere, so only its full score counts as right; and where the gold answer is a number,
the answer must state this number as `stated_numbers` reads it.

The splits come from different seeds, but a small space of problems may give both the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

from ...base import spec
from ...base.errors import UsageError
from ...base.seeds import seed_of
from .base import Kind, Task, TaskExample
from .stated_numbers import NUMBER, boxes, final_part, number_grade

SPLITS = ("train", "test")
# What makes a problem of a data set long to solve, among its metadata.
DIFFICULTIES: Mapping[str, str] = MappingProxyType(
    {
        "chain_sum": "num_terms",
        "basic_arithmetic": "num_terms",
        "gcd": "num_terms",
        "leg_counting": "num_animals",
        "products": "num_digits",
    }
)


@dataclass(frozen=True)
class ReasoningGym(Task):
    """dataset: its name in the package; count: the examples of each split; seed: of the problems;
    settings: further fields of the data set's configuration, such as {"max_terms": 3}. Raises
    UsageError when the package is not installed, for an unknown data set, and for settings that it
    refuses.
    """

    dataset: str = "chain_sum"
    count: int = 200
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    name: ClassVar[str] = "reasoning_gym"
    kind: ClassVar[Kind] = "generation"
    max_tokens: ClassVar[int] = 1024
    is_message: ClassVar[bool] = True

    def __post_init__(self) -> None:
        try:
            from reasoning_gym.factory import DATASETS
        except ImportError as error:
            raise UsageError(
                f"reasoning_gym needs the package reasoning-gym ({error}): "
                "pip install featherweight[reasoning-gym]"
            ) from error
        if self.dataset not in DATASETS:
            hint = spec.nearest(self.dataset, DATASETS)
            raise UsageError(f"reasoning_gym has no data set {self.dataset!r}; {hint}")
        self._problems("test")

    def examples(self, split: str = "test") -> Iterator[TaskExample]:
        if split not in SPLITS:
            raise UsageError(f"reasoning_gym has no split {split!r}; it has {', '.join(SPLITS)}")
        problems = self._problems(split)
        return (problems[i] for i in range(self.count))

    def prompt(self, example: TaskExample) -> str:
        return f"{example['question'].strip()}\nPut the final answer in \\boxed{{}}."

    def choices(self, example: TaskExample) -> tuple[str, ...]:
        return ()

    def golds(self, example: TaskExample) -> tuple[str, ...]:
        answer = example["answer"]
        return () if answer is None else (f"\\boxed{{{answer}}}", str(answer))

    def grade(self, example: TaskExample, answer: str) -> float | None:
        text = final_part(answer)
        if text is None:
            return 0.0
        stated_answer = (boxes(text) or [text])[0].strip()
        if not stated_answer:
            return 0.0
        gold = str(example["answer"])
        if NUMBER.fullmatch(gold) and not number_grade(gold, answer):
            return 0.0
        return float(self._scorer.score_answer(stated_answer, dict(example)) >= 1)

    def difficulty(self, example: TaskExample) -> int | None:
        level = example["metadata"].get(DIFFICULTIES.get(self.dataset))
        return level if isinstance(level, int) else None

    @cached_property
    def _scorer(self) -> Any:
        return self._problems("test")

    def _problems(self, split: str) -> Any:
        """The package's data set, which makes a problem when it is asked for it."""
        from reasoning_gym.factory import create_dataset

        seed = seed_of("reasoning_gym", self.dataset, self.seed, split)
        try:
            return create_dataset(self.dataset, seed=seed, size=self.count, **self.settings)
        except (AssertionError, TypeError, ValueError) as error:
            raise UsageError(
                f"reasoning_gym refuses {self.count} examples of {self.dataset} with "
                f"{dict(self.settings)}: {error}"
            ) from error
