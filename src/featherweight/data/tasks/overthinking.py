"""Answers that think longer than necessary, written by program: what training for shorter answers
starts from.

The solution is followed by one to three checks of all its steps. Their number is independent of the
question, so that easy ones are checked as often as difficult ones; if it were not, nothing would be
left to learn. Every check agrees, thus leaving it out costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .stated_numbers import END_THINK, THINK

MAX_CHECKS = 3
WAIT = "Wait,"
OPENINGS = (
    f"{WAIT} let me check that again.",
    f"{WAIT} is that right? Once more.",
    f"{WAIT} I should make sure.",
    f"{WAIT} maybe I made a mistake. Step by step again.",
)


def overthink(solution: str, steps: Sequence[str], answer: str, random: np.random.Generator) -> str:
    """`solution` and its checks between `<think>` and `</think>`, then `answer`.

    steps: the equations of the solution, such as "48 / 2 = 24".
    """
    checks = [
        " ".join([str(random.choice(OPENINGS)), *(f"{step}." for step in steps), "That is right."])
        for _ in range(int(random.integers(1, MAX_CHECKS + 1)))
    ]
    thoughts = "\n".join([solution, *checks])
    return f"{THINK}\n{thoughts}\n{END_THINK}\n{answer}"
