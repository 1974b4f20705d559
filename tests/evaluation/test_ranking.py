"""Places: equal to a slow twin, and models that cannot be told apart share one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from featherweight.base.statistics import paired_difference
from featherweight.evaluation.ranking import Measure, Place

NOISE = np.random.default_rng(0).normal(size=(4, 40))
NOISE -= NOISE.mean(1, keepdims=True)


def places_of(measure: Measure) -> dict[str, tuple[int, bool]]:
    return {place.model: (place.place, place.is_tie) for place in measure.places()}


def by_hand(figures: dict[str, np.ndarray], prefers_low: bool) -> dict[str, tuple[int, bool]]:
    """The definition, one group after the other."""
    left, places = dict(figures), {}
    while left:
        choose = min if prefers_low else max
        leader = choose(left, key=lambda model: left[model].mean())
        group = [leader]
        for model in left:
            interval = paired_difference(left[model], left[leader])
            if model != leader and interval.low <= 0 <= interval.high:
                group.append(model)
        places |= dict.fromkeys(group, (len(places) + 1, len(group) > 1))
        left = {model: values for model, values in left.items() if model not in group}
    return places


@pytest.mark.parametrize("prefers_low", [True, False])
def test_places_equal_the_definition(prefers_low: bool) -> None:
    figures = {
        "a": 1 + 0.1 * NOISE[0],
        "b": 1.01 + 0.1 * NOISE[1],
        "c": 2 + 0.1 * NOISE[2],
        "d": 3 + 0.1 * NOISE[3],
    }
    measure = Measure("KL", "windows", {k: v.tolist() for k, v in figures.items()}, prefers_low)
    assert places_of(measure) == by_hand(figures, prefers_low)
    ties = [place.model for place in measure.places() if place.is_tie]
    assert sorted(ties) == ["a", "b"]
    assert sorted(place.place for place in measure.places()) == (
        [1, 1, 3, 4] if prefers_low else [1, 2, 3, 3]
    )


def test_pairs_separate_what_single_intervals_do_not() -> None:
    """Windows differ far more than models; the difference of each window decides."""
    hard = 10 * NOISE[0]
    measure = Measure("KL", "windows", {"a": (hard + 0.1).tolist(), "b": hard.tolist()}, True)
    assert places_of(measure) == {"b": (1, False), "a": (2, False)}


def test_equal_models_and_single_units_tie() -> None:
    assert set(places_of(Measure("KL", "windows", {"a": [1, 2], "b": [1, 2]})).values()) == {
        (1, True)
    }
    single = Measure("acc", "examples", {"a": [0.0], "b": [1.0]})
    assert places_of(single) == {"b": (1, True), "a": (1, True)}
    assert single.entry()["places"][1]["difference"] == {"mean": -1.0, "low": None, "high": None}


def test_units_without_a_figure_are_left_out_of_a_pair() -> None:
    measure = Measure(
        "acc",
        "examples",
        {"a": [1, math.nan, 1, 1], "b": [1, 0, 1, 1], "c": [math.nan] * 4},
    )
    assert places_of(measure) == {"a": (1, True), "b": (1, True)}
    assert measure.places()[1].difference.mean == 0


def test_differences_of_logarithms_are_ratios() -> None:
    figures = {"a": np.log([10, 20]).tolist(), "b": np.log([30, 60]).tolist()}
    entry = Measure("tokens a second", "rounds", figures, is_log=True).entry()
    best, other = entry["places"]
    assert (best["model"], best["difference"], entry["is_ratio"]) == ("b", None, True)
    assert other["difference"] == pytest.approx({"mean": 1 / 3, "low": 1 / 3, "high": 1 / 3})
    assert Place("b", 1, False, None) in Measure("", "", figures).places()
