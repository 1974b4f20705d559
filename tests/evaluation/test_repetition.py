"""Loops are found, and honest lists and counting are none."""

from __future__ import annotations

import random

import pytest
import tiny

from featherweight.evaluation.repetition import has_few_grams, has_repeated_end, is_loop

TOKENIZER = tiny.tokenizer()
DIGIT_BY_DIGIT = ", ".join(map(str, range(100, 160)))


def ids(text: str) -> list[int]:
    """Mostly one token a byte, so digits are tokens: the hardest case for counting."""
    return list(TOKENIZER(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("period", [1, 2, 7, 31, 64])
def test_a_repeated_ngram_at_the_end_is_a_loop(period: int) -> None:
    start = [1000 + i for i in range(40)]
    repeats = max(3, -(-32 // period))
    loop = start + list(range(period)) * repeats
    assert has_repeated_end(loop) and is_loop(loop)
    # The cap may cut the last repeat anywhere; then there was one more before.
    assert is_loop(start + (list(range(period)) * (repeats + 1))[: -(period // 2) or None])


def test_two_repeats_or_a_few_tokens_are_no_loop() -> None:
    start, sentence = list(range(1000, 1100)), list(range(40))
    assert not is_loop(start + sentence * 2)
    assert not is_loop(start + [5] * 31)
    assert not is_loop([5] * 31) and is_loop([5] * 32)
    assert not is_loop(start + list(range(65)) * 3)
    assert not is_loop([])


def test_a_loop_that_ended_long_ago_is_none() -> None:
    assert not is_loop([5] * 64 + list(range(100, 260)))


def test_loops_with_small_changes_have_few_grams() -> None:
    rng = random.Random(0)
    loop: list[int] = []
    while len(loop) < 200:
        loop += list(range(12)) + ([rng.randrange(50, 53)] if rng.random() < 0.3 else [])
    assert has_few_grams(loop) and not has_few_grams(loop[:127])
    assert not has_few_grams([rng.randrange(300) for _ in range(200)])


@pytest.mark.parametrize(
    "text",
    [
        DIGIT_BY_DIGIT,
        "\n".join(f"{i}. {name}" for i, name in enumerate(["apple", "pear", "plum", "fig"] * 4)),
        "\n".join(f"- Step {i}: turn the page and read on." for i in range(1, 12)),
        "\n".join(f"{i} x 7 = {7 * i}" for i in range(1, 30)),
        "| a | b |\n|---|---|\n" + "\n".join(f"| {i} | {i * i} |" for i in range(20)),
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday. " * 2,
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 2,
    ],
)
def test_honest_lists_and_counting_are_no_loops(text: str) -> None:
    for length in range(20, len(ids(text)) + 1, 7):
        assert not is_loop(ids(text)[:length]), text[:200]
