"""Which rules may pay a wrong answer more than a right one of its group: a property test for the
safe ones, a counterexample for each of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reasoning.rewards.answers import LIMITS, answers, batches, every_rule, state_after

from featherweight.base.spec import parse, text
from featherweight.reasoning.marks import Marks
from featherweight.reasoning.rewards import BY_NAME, Rule, Sizes, rewards

SAFE = [rule for rule in every_rule() if rule.is_safe]

# Name -> lengths, correct, rewards, further fields. A wrong answer gets more than a right one.
COUNTEREXAMPLES: dict[str, tuple[list[float], list[int], list[float], dict[str, Any]]] = {
    # 1 - 0.001 * 2000 and -0.001 * 100
    "linear": ([2000, 100], [1, 0], [-1, -0.1], {}),
    # 1 - 0.0003 * 4000 and 1000 tokens as asked for
    "l1_exact": ([5000, 1000], [1, 0], [-0.2, 0], {"budget": [1000.0, 1000.0]}),
    # shortest right 100: 2 - 0.001 * 4000 and 0
    "shorterbetter": ([4100, 100, 100], [1, 1, 0], [-2, 2, 0], {}),
    # the penalty starts at 0.001 a token
    "a_dlp": ([2000, 100], [1, 0], [-1, -0.1], {}),
    # 1000 / 4000 - 1 + 2 * 0.5 and 1000 / 400 - 1 - 2 * 0.5
    "o1_pruner": (
        [4000, 400],
        [1, 0],
        [0.25, 0.5],
        {"reference_length": [1000.0] * 2, "reference_accuracy": [0.5] * 2},
    ),
}


def is_safe_on(graded: Marks, got: torch.Tensor) -> bool:
    """Whether no wrong answer has more than a right one of its group."""
    for number in graded.group.unique():
        is_member = graded.group == number
        right, wrong = got[is_member & graded.is_correct], got[is_member & (graded.correct == 0)]
        if len(right) and len(wrong) and wrong.max() > right.min():
            return False
    return True


@pytest.mark.parametrize("rule", SAFE, ids=text)
@settings(max_examples=25)
@given(graded=batches(ungraded=True), history=st.lists(batches(), max_size=2))
def test_baseline_safety(rule: Rule, graded: Marks, history: Sequence[Marks]) -> None:
    assert is_safe_on(graded, rewards(rule, graded, state_after(rule, history)))


def corners(limit: int) -> Marks:
    """A prompt for each combination of few or many, short or long, right and wrong answers."""
    ends = (1, limit // 4, limit)
    cases = [
        (num_right, num_wrong, shortest, longest, wrong)
        for num_right, num_wrong in product((1, 7), repeat=2)
        for shortest, longest in combinations_with_replacement(ends, 2)
        for wrong in ends
    ]
    lengths: list[int] = []
    correct: list[int] = []
    group: list[int] = []
    for number, (num_right, num_wrong, shortest, longest, wrong) in enumerate(cases):
        lengths += [longest] + [shortest] * num_right + [wrong] * num_wrong
        correct += [1] * (num_right + 1) + [0] * num_wrong
        group += [number] * (1 + num_right + num_wrong)
    return answers(lengths, correct, group, limit, budget=[float(limit // 2)] * len(group))


@pytest.mark.parametrize("rule", SAFE, ids=text)
def test_safe_at_the_corners(rule: Rule) -> None:
    for limit in LIMITS:
        graded = corners(limit)
        num_prompts = len(graded.group.unique())
        solved = graded.select(graded.is_correct)
        for history in ([], [graded], [graded, solved]):
            state = state_after(rule, history, num_prompts)
            assert is_safe_on(graded, rewards(rule, graded, state))


@pytest.mark.parametrize("name", COUNTEREXAMPLES)
def test_counterexamples(name: str) -> None:
    lengths, correct, expected, fields = COUNTEREXAMPLES[name]
    rule = BY_NAME[name]()
    graded = answers(lengths, correct, **fields)
    got = rewards(rule, graded, rule.start(Sizes()))
    assert got.tolist() == pytest.approx(expected)
    assert not is_safe_on(graded, got)


def test_every_unsafe_rule_has_a_counterexample() -> None:
    assert {name for name, rule in BY_NAME.items() if not rule.is_safe} == set(COUNTEREXAMPLES)


@pytest.mark.parametrize("name", ["l1_max", "dler", "da_dler", "thinkprune"])
def test_weak_rules_pay_a_long_right_answer_like_a_wrong_one(name: str) -> None:
    graded = answers([9000, 10], [1, 0], budget=[100.0, 100.0])
    assert rewards(BY_NAME[name](), graded, {}).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("rule", "is_safe"),
    [
        # the docstrings name these bounds
        ("kimi(weight=2)", True),
        ("aalc(weight=0.9)", True),
        ("hapo(floor=-1)", True),
        ("laser_de(bonus=1.5)", True),
        ("laser_de(bonus=1.6)", False),
        ("alp(beta=1e-4)", True),
        ("alp(beta=3e-4)", False),
    ],
)
def test_where_safety_ends(rule: str, is_safe: bool) -> None:
    built = parse(rule, BY_NAME)
    # The prompt's shortest right answer has 9 tokens, targets are 2500 and the accuracy is 1.
    history = [
        answers([100] * 8, [1, 1, 1, 1, 0, 0, 0, 0], limit=10000),
        answers([9] * 8, [1] * 8, limit=10000),
    ]
    state = state_after(built, history)
    graded = answers([9999, 20, 1, 9999, 5000], [1, 1, 0, 0, 0], limit=10000)
    assert is_safe_on(graded, rewards(built, graded, state)) == is_safe


def open_r1_length_reward(lengths: list[float], correct: list[int]) -> list[float]:
    """What open-r1's `len_reward` computes: Kimi's formula, with the shortest and the longest
    answer taken from the whole call, which holds many prompts.
    """
    least, most = min(lengths), max(lengths)
    savings = [0.5 - (length - least) / (most - least) for length in lengths]
    return [s if c else min(0, s) for s, c in zip(savings, correct, strict=True)]


def test_other_prompts_change_the_reward_of_open_r1_but_not_ours() -> None:
    easy, hard = [100.0, 200.0], [100.0, 10100.0]
    # Alone, the longer answer to the easy prompt loses a whole point: 0.5 and -0.5.
    assert open_r1_length_reward(easy, [1, 1]) == [0.5, -0.5]
    # Beside a hard prompt it loses a hundredth, so a batch of mixed difficulty does not shorten.
    assert open_r1_length_reward(easy + hard, [1] * 4)[:2] == pytest.approx([0.5, 0.49])
    # On its own it also pays a wrong short answer (0) more than a right long one (-0.5).
    assert open_r1_length_reward([200.0, 100.0], [1, 0]) == [-0.5, 0]
    kimi = BY_NAME["kimi"]()
    alone = rewards(kimi, answers(easy, [1, 1]), {})
    mixed = rewards(kimi, answers(easy + hard, [1] * 4, [0, 0, 1, 1]), {})
    assert mixed[:2].tolist() == alone.tolist() == pytest.approx([1.2, 0.8])
