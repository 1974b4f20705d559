"""Impossible values of the sampling parameters are refused, naming the field."""

from __future__ import annotations

import math
from typing import Any

import pytest

from featherweight.base.errors import UsageError
from featherweight.base.sampling import Sampling


def test_only_the_lowest_temperatures_are_greedy() -> None:
    assert Sampling(temperature=0).is_greedy and Sampling(temperature=1e-9).is_greedy
    assert not Sampling(temperature=0.01).is_greedy


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("max_tokens", value) for value in (0, -1, 10**9)],
        *[("temperature", value) for value in (-0.1, 11, math.nan, math.inf)],
        *[("top_k", value) for value in (-1, 10**9)],
        *[("top_p", value) for value in (0.0, 1.1, -1.0, math.nan)],
        *[("min_p", value) for value in (-0.1, 1.1, math.nan)],
        *[("repetition_penalty", value) for value in (0.0, -1.0, 11.0, math.nan)],
        ("seed", 2**64),
        *[("logprobs", value) for value in (-1, 21)],
        *[("stop", value) for value in (("",), ("x" * 501,), ("x",) * 10_000)],
    ],
)
def test_impossible_values(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match="stop" if field == "stop" else field):
        Sampling(**{field: value})
