"""Small task files, made here: for every task a row, with wrong answers that are near the right
ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from featherweight.data import tasks

LETTERS = {"text": ["ice", "steam", "rain"], "label": ["A", "B", "C"]}
HUMANEVAL = {
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(3) == 6\n    assert candidate(0) == 0\n",
    "entry_point": "double",
}
# The rows of each task, the first in the short form, and answers to the first that are wrong.
ROWS: dict[str, list[dict[str, Any]]] = {
    "ARCEasy": [
        {"query": "Question: What is cold?", "choices": ["ice", "steam"], "gold": 0},
        {"question": "What is cold?", "choices": LETTERS, "answerKey": "A"},
    ],
    "ARCChallenge": [
        {"query": "Question: What is wet?", "choices": ["rain", "sand"], "gold": 0},
        {"question": "What is wet?", "choices": LETTERS, "answerKey": "C"},
    ],
    "BoolQ": [
        {
            "query": "Passage: It rains.\nQuestion: is it wet?\n",
            "choices": ["no", "yes"],
            "gold": 1,
        },
        {"passage": "It rains.", "question": "is it wet", "label": 1},
    ],
    "PIQA": [
        {"query": "Question: cool tea\n", "choices": ["add ice", "add sand"], "gold": 0},
        {"goal": "cool tea", "sol1": "add ice", "sol2": "add sand", "label": 0},
    ],
    "OpenBookQA": [
        {"query": "Ice is", "choices": ["cold", "hot"], "gold": 0},
        {
            "question_stem": "Ice is",
            "choices": {"text": ["hot", "cold"], "label": ["A", "B"]},
            "answerKey": "B",
        },
    ],
    "CommonsenseQA": [
        {
            "query": "Question: What is cold?\nChoices:\nA. ice\nB. steam\nAnswer:",
            "choices": ["A", "B"],
            "gold": 0,
        },
        {"question": "What is cold?", "choices": LETTERS, "answerKey": "A"},
    ],
    "COPA": [
        {"query": "It rained, therefore", "choices": ["it was wet.", "it was dry."], "gold": 0},
        {
            "premise": "It rained.",
            "choice1": "It was wet.",
            "choice2": "It was dry.",
            "question": "effect",
            "label": 0,
        },
    ],
    "LAMBADA": [
        {"context": "She opened the old", "continuation": "door"},
        {"text": "She opened the old door"},
    ],
    "GSM8K": [{"question": "1,000 and 80?", "answer": "<<1000+80=1080>>It is 1080.\n#### 1,080"}],
    "HumanEval": [HUMANEVAL],
    "IFEval": [
        {
            "prompt": "Write two words without commas.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [{}, {"relation": "at least", "num_words": 2, "keywords": None}],
        }
    ],
}
# Right answers besides the golds of the example.
RIGHT = {
    "GSM8K": ["It is 1080.", "so $1,080", "#### 1080"],
    "HumanEval": ["    y = x + x\n    return y\n"],
    "IFEval": ["Two words"],
}
GUESSES = [
    "",
    "no number",
    "\\boxed{}",
    "\\boxed{987654321}",
    "#### 987654321",
    "</think>1</think>",
]
WRONG = {
    "Arithmetic": GUESSES,
    "ReasoningGym": GUESSES,
    "ARCEasy": ["steam", "", "Ice"],
    "ARCChallenge": ["sand", "rain."],
    "BoolQ": ["no", "yes?"],
    "PIQA": ["add sand", "add"],
    "OpenBookQA": ["hot", "Ice is cold"],
    "CommonsenseQA": ["B", "ice"],
    "COPA": [" it was dry.", "it was wet."],
    "LAMBADA": ["doors", "", "Door"],
    "GSM8K": ["", "It is 108.", "1080 or 1081", "-1080", "1080.5", "no number"],
    "HumanEval": ["    return x + 2\n", "    return 2 * x if x else None\n", "    import os\n", ""],
    "IFEval": ["Two, words", "Word", " "],
    "OpChain": ["", "END", "END 10", "#1 4"],
}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_task(name: str, folder: Path) -> tasks.Task:
    """The task called `name` over its rows."""
    task_class: Any = getattr(tasks, name)
    if name == "ReasoningGym":
        pytest.importorskip("reasoning_gym")
    if not task_class.file_names:
        return task_class(count=20)
    file = write_rows(folder / f"{task_class.file_names[0]}.jsonl", ROWS[name])
    return task_class(file, run_code=True) if name == "HumanEval" else task_class(file)
