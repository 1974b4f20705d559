"""Answers, graders and formats for the tests of the adapters, at the top of a module, so that they
can be pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featherweight.reasoning.adapters.answers import AnswerFormat

END_THOUGHT, END = 5, 0
FORMAT = AnswerFormat(think_end=(END_THOUGHT,), end_ids=(END,), limit=12)


def equals_gold(example: Mapping[str, Any], text: str) -> float | None:
    """None for an example without gold, an error for one whose gold is "error"."""
    if example["gold"] is None:
        return None
    if example["gold"] == "error":
        raise RuntimeError("the grader broke")
    return float(text == example["gold"])


def even_words(example: Mapping[str, Any], text: str) -> float | None:
    """Right when the number of words is even: about half of what an untrained model writes."""
    return float(len(text.split()) % 2 == 0)


def answer(num_thoughts: int, is_cut: bool = False) -> list[int]:
    """The ids of an answer that thinks for `num_thoughts` tokens, the marker included."""
    ids = [7 + i % 3 for i in range(num_thoughts - 1)] + [END_THOUGHT, 9]
    return ids if is_cut else [*ids, END]


def even_word_rewards(completions: Any, **columns: Any) -> list[float | None]:
    """`even_words` as a reward function of TRL."""
    return [even_words({}, text) for text in completions]
