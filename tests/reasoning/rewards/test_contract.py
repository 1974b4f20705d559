"""What holds for every rule: it is a text, refuses wrong constants, sees one prompt at a time in
any order, and gives finite numbers for every group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reasoning.rewards.answers import (
    NUM_PROMPTS,
    answers,
    batches,
    every_rule,
    state_after,
)

from featherweight.base.errors import UsageError
from featherweight.base.spec import parse, text
from featherweight.reasoning import rewards as room
from featherweight.reasoning.marks import Marks
from featherweight.reasoning.rewards import BY_NAME, Rule, rewards
from featherweight.reasoning.rewards.base import check_range

REFERENCES = {"budget": 40.0, "reference_length": 50.0, "reference_accuracy": 0.5}
UNGRADED = math.nan
DEGENERATE = {
    "all wrong": ([10, 20, 30], [0, 0, 0]),
    "all right": ([10, 20, 30], [1, 1, 1]),
    "one right answer": ([10], [1]),
    "one wrong answer": ([10], [0]),
    "one right of three": ([10, 20, 30], [0, 1, 0]),
    "equally long": ([20, 20, 20], [1, 1, 0]),
    "without thinking": ([0, 0, 0], [1, 1, 0]),
    "at the limit": ([100, 100], [1, 0]),
    "longer than the limit": ([150, 300], [1, 0]),
    "partly correct": ([10, 20, 30], [0.5, 0.75, 0.25]),
    "ungraded": ([10, 20, 30], [UNGRADED, 1, 0]),
    "all ungraded": ([10, 20], [UNGRADED, UNGRADED]),
}


@pytest.mark.parametrize("rule", every_rule(), ids=text)
def test_a_rule_is_a_text(rule: Rule) -> None:
    assert parse(text(rule, rule.name), BY_NAME) == rule
    assert parse(rule.name, BY_NAME) == type(rule)()


def test_names() -> None:
    assert len(BY_NAME) == len(room.__all__)
    assert parse("alp(beta=1e-6)", BY_NAME) == BY_NAME["alp"](beta=1e-6)
    assert parse("thinkprune(targets=(60, 40))", BY_NAME).targets == (60, 40)
    with pytest.raises(UsageError, match="did you mean 'shorterbetter'"):
        parse("shorter_better", BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_docstrings_name_every_constant_and_a_source(name: str) -> None:
    docstring = BY_NAME[name].__doc__ or ""
    described = docstring + "".join(base.__doc__ or "" for base in BY_NAME[name].__bases__)
    for field in fields(BY_NAME[name]):  # type: ignore[arg-type]
        assert field.name in described, field.name
    if name not in ("none", "linear", "prime_rl"):
        module = Path(str(room.__file__)).with_name(BY_NAME[name].__module__.rpartition(".")[2])
        assert "arXiv 25" in module.with_suffix(".py").read_text()


@pytest.mark.parametrize("name", BY_NAME)
def test_wrong_constants_are_refused(name: str) -> None:
    for field in fields(BY_NAME[name]):  # type: ignore[arg-type]
        for wrong in ("1e999", "-1e999", "'x'", "None", "[1]"):
            with pytest.raises(UsageError, match=field.name):
                parse(f"{name}({field.name}={wrong})", BY_NAME)
        if isinstance(field.default, float):
            with pytest.raises(UsageError, match=field.name):
                BY_NAME[name](**{field.name: math.nan})


@pytest.mark.parametrize("wrong", [100.5, "100", True, None])
def test_a_whole_number_is_needed(wrong: object) -> None:
    # Around the constructor, whose types the tests check before the rule does.
    rule = BY_NAME["dler"]()
    object.__setattr__(rule, "target", wrong)
    with pytest.raises(UsageError, match=f"target={wrong!r} is not a whole number; use 5"):
        check_range(rule, "target", 1, 10, "use 5")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("alp(beta=-1e-7)", "beta=-1e-07 should be at least 0; the paper has 1e-7"),
        ("kimi(weight=3)", "at least 0 and at most 2; above 2 a wrong answer"),
        ("dler(target=0)", "at least 1; the paper has 4000"),
        ("laser_d(shortest=17)", "at least 1 and at most 16"),
        ("aalc(target=0)", "the authors have 1"),
        ("thinkprune(targets=(10, 20))", "lengths that fall"),
        ("thinkprune(targets=())", "lengths that fall"),
        ("thinkprune(targets=(10, 0))", "lengths that fall"),
        ("cosine(wrong_end=0.6)", "use smaller wrong_start and wrong_end"),
        ("o1_pruner(lowest=5.0)", "lowest=5.0 should be at most 4; the authors have -2"),
        ("prime_rl(weight=1.5)", "above 1 it is not safe"),
    ],
)
def test_refusals_say_what_to_use(wrong: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(wrong, BY_NAME)


@pytest.mark.parametrize("rule", every_rule(), ids=text)
@settings(max_examples=12)
@given(
    graded=batches(ungraded=True),
    history=st.lists(batches(ungraded=True), max_size=2),
    order=st.randoms(),
)
def test_order_of_rows_changes_nothing(
    rule: Rule, graded: Marks, history: Sequence[Marks], order: Any
) -> None:
    rows = list(range(len(graded)))
    order.shuffle(rows)
    state = state_after(rule, history)
    got, shuffled = rewards(rule, graded, state), rewards(rule, graded.select(as_rows(rows)), state)
    assert torch.allclose(shuffled, got[rows], rtol=0, atol=1e-9, equal_nan=True)
    # Alone, each prompt gets what it gets among others.
    for number in graded.group.unique():
        is_member = graded.group == number
        alone = rewards(rule, graded.select(is_member), state)
        assert torch.allclose(alone, got[is_member], rtol=0, atol=1e-9, equal_nan=True)
    after = rule.update(state, graded)
    for key, tensor in rule.update(state, graded.select(as_rows(rows))).items():
        assert torch.allclose(tensor, after[key], rtol=0, atol=1e-9, equal_nan=True)


def as_rows(rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int64)


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_groups(case: str) -> None:
    lengths, correct = DEGENERATE[case]
    count = len(lengths)
    graded = answers(
        lengths, correct, limit=100, **{name: [x] * count for name, x in REFERENCES.items()}
    )
    first = answers([0, 15, 40], [1, 0, 1], [0, 0, 1], limit=100)
    for rule in every_rule():
        for state in (state_after(rule, []), state_after(rule, [first, graded])):
            got = rewards(rule, graded, state)
            assert torch.equal(got.isfinite(), graded.has_mark), rule
            assert torch.equal(got.isnan(), ~graded.has_mark), rule


def test_ungraded_answers_change_nothing() -> None:
    graded = answers([10, 20, 30, 5], [1, 1, 0, UNGRADED], limit=100)
    for rule in every_rule():
        if rule.name in ("l1_exact", "l1_max", "o1_pruner"):
            continue
        state = state_after(rule, [answers([15], [1], limit=100)])
        without = graded.select(graded.has_mark)
        assert torch.equal(rewards(rule, graded, state)[:3], rewards(rule, without, state))
        after, expected = rule.update(state, graded), rule.update(state, without)
        assert all(torch.equal(after[key], expected[key]) for key in expected)


def test_an_empty_batch() -> None:
    graded = answers([10], [1]).select(as_rows([]))
    for rule in every_rule():
        state = rule.start(room.Sizes(prompts=NUM_PROMPTS))
        assert len(rewards(rule, graded, state)) == 0
        after = rule.update(state, graded)
        assert all(
            torch.equal(after[key].nan_to_num(-1), state[key].nan_to_num(-1)) for key in state
        )
