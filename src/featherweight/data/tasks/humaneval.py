"""HumanEval (Chen et al. 2021, arXiv:2107.03374): 164 Python functions to complete from signature
and docstring. An answer is right when the task's tests pass (pass@1 with greedy decoding).

Grading runs the model's program on this machine, in a process with limits (`sandbox.py`), so it
is off until `run_code=True`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...base.errors import UsageError
from .base import FileTask, Kind, TaskExample, text_at
from .sandbox import run_program

PROGRAM_SECONDS = 5.0


@dataclass(frozen=True)
class HumanEval(FileTask):
    """file: of {"prompt", "canonical_solution", "test", "entry_point"}; run_code: allow this task
    to run what the model writes. Without it, `examples` and `grade` raise UsageError.
    """

    file: Path
    run_code: bool = False
    name: ClassVar[str] = "humaneval"
    kind: ClassVar[Kind] = "generation"
    file_names: ClassVar[tuple[str, ...]] = ("humaneval",)
    stop: ClassVar[tuple[str, ...]] = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    max_tokens: ClassVar[int] = 1024
    grade_seconds: ClassVar[float] = 30.0

    @property
    def files(self) -> Mapping[str, Path | None]:
        return {"test": self.file}

    def examples(self, split: str = "test") -> Iterator[TaskExample]:
        self._check_permission()
        return super().examples(split)

    def read_row(self, row: Mapping[str, Any]) -> TaskExample:
        names = ("prompt", "canonical_solution", "test", "entry_point")
        return {name: text_at(row, name) for name in names}

    def prompt(self, example: TaskExample) -> str:
        return str(example["prompt"])

    def choices(self, example: TaskExample) -> tuple[str, ...]:
        return ()

    def golds(self, example: TaskExample) -> tuple[str, ...]:
        return (example["canonical_solution"],)

    def grade(self, example: TaskExample, answer: str) -> float | None:
        self._check_permission()
        check = f"{example['test']}\ncheck({example['entry_point']})"
        return float(run_program(f"{example['prompt']}{answer}\n{check}\n", PROGRAM_SECONDS))

    def _check_permission(self) -> None:
        if not self.run_code:
            raise UsageError(
                "humaneval runs the programs that the model writes on this machine; allow it with "
                "--tasks 'humaneval(run_code=True)'"
            )
