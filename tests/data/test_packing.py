"""Cutting, packing and interleaving, on numbers that can be checked by eye."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from featherweight.data import packing


def test_cut_joins_documents_and_drops_the_tail() -> None:
    assert packing.cut([[1, 2, 3], [4, 5], [6, 7]], 3) == [(1, 2, 3), (4, 5, 6)]
    assert packing.cut([[1, 2, 3, 4, 5]], 3, prefix=[0]) == [(0, 1, 2), (0, 3, 4)]
    assert packing.cut([[1, 2]], 3) == []


def test_pack_starts_every_sequence_with_a_dialogue() -> None:
    assert packing.pack([[1, 2], [3, 4], [5, 6, 7], [8]], 3) == [(1, 2, 3), (5, 6, 7)]
    assert packing.pack([[1, 2], [3, 4]], 3, prefix=[0]) == [(0, 1, 2), (0, 3, 4)]


def test_pack_goes_on_inside_a_long_dialogue() -> None:
    assert packing.pack([[1, 2, 3, 4, 5, 6, 7], [8, 9, 10]], 3) == [
        (1, 2, 3),
        (4, 5, 6),
        (8, 9, 10),
    ]


def test_unique_keeps_the_first() -> None:
    assert packing.unique([(1, 2), (3, 4), (1, 2)]) == [(1, 2), (3, 4)]


def test_generators_differ_by_source_and_seed() -> None:
    draws = {
        (seed, name): packing.generator(seed, name).random()
        for seed in (0, 1)
        for name in ("a", "b")
    }
    assert len(set(draws.values())) == 4
    assert draws[0, "a"] == packing.generator(0, "a").random()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 300))
def test_every_prefix_has_the_shares(weights: list[int], count: int) -> None:
    shares = {str(i): float(w) for i, w in enumerate(weights)}
    order = packing.schedule(shares, count)
    assert len(order) == count
    counts: Counter[str] = Counter()
    for position, name in enumerate(order, 1):
        counts[name] += 1
        for each_name, share in shares.items():
            assert counts[each_name] - share / sum(weights) * position < 1 + 1e-9


def test_the_first_places_do_not_depend_on_how_many_follow() -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    assert packing.schedule(shares, 100)[:37] == packing.schedule(shares, 37)
    assert Counter(packing.schedule(shares, 100)) == {"a": 50, "b": 30, "c": 20}
