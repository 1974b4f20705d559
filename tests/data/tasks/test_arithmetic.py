"""Problems of arithmetic: right steps, sizes that mean something, splits that share nothing."""

from __future__ import annotations

import math
import re

import pytest

from featherweight.base.errors import UsageError
from featherweight.data.tasks import Arithmetic
from featherweight.data.tasks.arithmetic_problems import ANIMALS, KINDS, MAX_SIZE

LEGS = {name: legs for *names, legs in ANIMALS for name in names}
TASK = Arithmetic(count=160, largest=MAX_SIZE)


def solve(kind: str, question: str) -> float:
    """The answer, computed from the question alone."""
    if kind == "gcd":
        return math.gcd(*map(int, re.findall(r"\d+", question)))
    if kind == "leg_counting":
        herds = re.findall(r"(\d+) (\w+)", question)
        return sum(int(count) * LEGS[animal] for count, animal in herds)
    return eval(question.removeprefix("What is ").removesuffix("?"))


def test_answers_and_steps_are_right() -> None:
    for example in TASK.examples("train"):
        assert solve(example["kind"], example["question"]) == int(example["answer"])
        for step in example["steps"]:
            left, right = step.split(" = ")
            assert eval(left) == eval(right), step
        if example["kind"] != "gcd":
            assert example["steps"][-1].endswith(f" = {example['answer']}")


def test_the_size_is_the_number_of_operations() -> None:
    sizes = {(example["kind"], example["size"]) for example in TASK.examples()}
    assert sizes == {(kind, size) for kind in KINDS for size in range(1, MAX_SIZE + 1)}
    for example in TASK.examples():
        size, num_steps = TASK.difficulty(example), len(example["steps"])
        if example["kind"] in ("chain_sum", "gcd", "basic_arithmetic"):
            assert num_steps == size
        if example["kind"] == "leg_counting":
            assert num_steps == 2 * size - 1


def test_graders_refuse_a_neighbouring_number() -> None:
    for example in TASK.examples():
        for wrong in (int(example["answer"]) + 1, -int(example["answer"]) - 1):
            assert TASK.grade(example, f"<think>a</think> \\boxed{{{wrong}}}") == 0


def test_splits_share_no_problem_and_seeds_give_others() -> None:
    train, test = ({e["question"] for e in TASK.examples(split)} for split in ("train", "test"))
    assert not train & test
    assert list(TASK.examples()) == list(Arithmetic(count=160, largest=MAX_SIZE).examples())
    assert list(TASK.examples()) != list(Arithmetic(160, largest=MAX_SIZE, seed=1).examples())


def test_kinds_can_be_chosen() -> None:
    task = Arithmetic(count=4, kinds=["gcd", "products"], smallest=2, largest=3)
    found = [(e["kind"], e["size"]) for e in task.examples()]
    assert found == [("gcd", 2), ("products", 2), ("gcd", 3), ("products", 3)]
    assert task.prompt(next(task.examples())).endswith("? Put the final answer in \\boxed{}.")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ["sums"]}, "no kind is called 'sums'"),
        ({"kinds": "gcd"}, "list of names"),
        ({"kinds": []}, "list of names"),
        ({"smallest": 0}, "sizes 1 to 8"),
        ({"largest": 9}, "sizes 1 to 8"),
        ({"count": 0}, "at least one problem"),
    ],
)
def test_problems_that_cannot_be_made(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Arithmetic(**settings)
    with pytest.raises(UsageError, match="no split 'valid'"):
        list(TASK.examples("valid"))
