"""Tasks: questions with graders, read from local files (one idea a file), or made here (`OpChain`,
`Arithmetic`).

`find_tasks` makes tasks from their names in the shell; `Grader` grades answers and survives a
grader that fails. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .arc import ARCChallenge, ARCEasy
from .arithmetic import Arithmetic
from .base import FileTask, Task, TaskExample
from .boolq import BoolQ
from .commonsense_qa import CommonsenseQA
from .copa import COPA
from .finding import files_of, find_tasks, settings_of
from .grading import Grade, Grader
from .gsm8k import GSM8K
from .humaneval import HumanEval
from .ifeval import IFEval
from .lambada import LAMBADA
from .multiple_choice import MultipleChoice
from .op_chain import OpChain
from .openbookqa import OpenBookQA
from .piqa import PIQA
from .reasoning_gym import ReasoningGym

__all__ = [
    "COPA",
    "GSM8K",
    "LAMBADA",
    "PIQA",
    "ARCChallenge",
    "ARCEasy",
    "Arithmetic",
    "BoolQ",
    "CommonsenseQA",
    "HumanEval",
    "IFEval",
    "OpChain",
    "OpenBookQA",
    "ReasoningGym",
]
PUBLIC_BASE = (FileTask, MultipleChoice, Task)
PUBLIC_FUNCTIONS = (Grade, Grader, TaskExample, files_of, find_tasks, settings_of)
# The name of a task in the shell -> its class.
BY_NAME: Mapping[str, type[Task]] = MappingProxyType(
    {globals()[name].name: globals()[name] for name in __all__}
)
