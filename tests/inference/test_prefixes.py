"""The common prefix of two token sequences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from featherweight.inference.prefixes import common_prefix_length

TOKENS = st.lists(st.integers(0, 2), max_size=6)


@given(TOKENS, TOKENS)
def test_the_prefix_is_common_and_cannot_be_longer(first: list[int], second: list[int]) -> None:
    length = common_prefix_length(first, tuple(second))
    assert first[:length] == second[:length]
    assert first[: length + 1] != second[: length + 1] or length == len(first) == len(second)
