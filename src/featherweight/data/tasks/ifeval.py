"""IFEval (Zhou et al. 2023, arXiv:2311.07911): instructions that a program can verify, such as
"write more than 300 words", "use no commas", "end with this sentence".

An answer counts when it follows all instructions of its prompt, literally (the strict prompt-level
accuracy). The checks (`instructions.py`) are our own; sentences are split by punctuation rather
than by a trained model. An example with an instruction that we cannot verify, such as the language
of the answer, is ungraded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .base import FileTask, Kind, TaskExample, text_at
from .instructions import CHECKS


@dataclass(frozen=True)
class IFEval(FileTask):
    """The 541 prompts. file: of {"prompt", "instruction_id_list", "kwargs"}, one mapping of
    arguments for each instruction.
    """

    file: Path
    name: ClassVar[str] = "ifeval"
    kind: ClassVar[Kind] = "generation"
    file_names: ClassVar[tuple[str, ...]] = ("ifeval", "ifeval_prompts")
    max_tokens: ClassVar[int] = 1280
    is_message: ClassVar[bool] = True

    @property
    def files(self) -> Mapping[str, Path | None]:
        return {"test": self.file}

    def read_row(self, row: Mapping[str, Any]) -> TaskExample:
        names, arguments = row["instruction_id_list"], row["kwargs"]
        if not isinstance(names, list) or not names or len(names) != len(arguments):
            raise ValueError("an example needs instructions, and arguments for each of them")
        # Some copies of the data set have every possible argument in every row, most of them null.
        settings = [{k: v for k, v in a.items() if v is not None} for a in arguments]
        return {"prompt": text_at(row, "prompt"), "instructions": names, "arguments": settings}

    def prompt(self, example: TaskExample) -> str:
        return str(example["prompt"])

    def choices(self, example: TaskExample) -> tuple[str, ...]:
        return ()

    def golds(self, example: TaskExample) -> tuple[str, ...]:
        return ()

    def grade(self, example: TaskExample, answer: str) -> float | None:
        checks = [CHECKS.get(name) for name in example["instructions"]]
        if any(check is None for check in checks):
            return None
        if not answer.strip():
            return 0.0
        pairs = zip(checks, example["arguments"], strict=True)
        return float(all(check(answer, **arguments) for check, arguments in pairs if check))
