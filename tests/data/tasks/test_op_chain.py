"""Chains of operations: fixed facts, splits that do not overlap, and traces whose checking says
nothing of the length.
"""

from __future__ import annotations

import numpy as np

from featherweight.data.tasks.op_chain import END, WAIT, WORDS, OpChain


def test_the_same_seed_gives_the_same_chains() -> None:
    task = OpChain(count=30)
    assert list(task.examples()) == list(OpChain(count=30).examples())
    assert list(task.examples()) != list(OpChain(count=30, seed=1).examples())
    lengths = [len(example["operations"]) for example in task.examples()]
    assert sorted(set(lengths)) == list(range(1, 11)) and lengths.count(4) == 3


def test_splits_share_no_chain_of_three_operations() -> None:
    task = OpChain(count=300, shortest=3)
    train, test = ({task.prompt(e) for e in task.examples(split)} for split in ("train", "test"))
    assert not train & test


def test_operations_are_permutations_that_do_not_commute() -> None:
    task = OpChain()
    images = [
        [task.digits({"start": start, "operations": name})[0] for start in range(10)]
        for name in "abcdefghijkl"
    ]
    assert all(sorted(image) == list(range(10)) for image in images)
    both_ways = [
        task.digits({"start": start, "operations": operations})[-1]
        for operations in ("ab", "ba")
        for start in range(10)
    ]
    assert both_ways[:10] != both_ways[10:]


def test_traces_are_right_and_made_of_words() -> None:
    task = OpChain(count=200)
    for seed, example in enumerate(task.examples("train")):
        trace = task.trace(example, seed)
        assert task.grade(example, trace) == 1
        assert set(f"{task.prompt(example)} {trace}".split()) <= set(WORDS)
        assert task.grade(example, trace.removesuffix(f" {trace[-1]}")) == 0, "cut before its end"
        assert task.grade(example, f"{trace} {END} {trace[-1]}") == 0, "two ends"
        assert task.grade(example, f"{trace} #1") == 0, "something after the end"


def test_op_chain_redundancy_independent() -> None:
    """How often a trace checks must not depend on the length: else nothing is left to learn."""
    task = OpChain(count=3000)
    passes = {True: [], False: []}
    errors = 0
    for seed, example in enumerate(task.examples("train")):
        trace = task.trace(example, seed)
        is_long = len(example["operations"]) > 5
        passes[is_long].append(trace.split().count(WAIT))
        first_pass = trace.split(f" {WAIT} ")[0].split()
        right_digits = task.digits(example)
        is_whole = len(first_pass) == 2 * len(right_digits)
        errors += is_whole and first_pass[1::2] != list(map(str, right_digits))
    means = [np.mean(passes[is_long]) for is_long in (True, False)]
    assert abs(means[0] - means[1]) < 0.12
    assert 1.85 < np.mean(means) < 2.05  # 2.05 but for the direct answers
    assert errors > 50
