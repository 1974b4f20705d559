"""The places of several models by one measure, where models that cannot be told apart share one.

The best model has the smallest (or largest) mean. Every other model is compared with it by their
paired difference over the same units (windows of text, examples of a task, rounds of timing). When
the interval of the difference contains 0, the two tie and share the place. Among the models that
are left the best is taken again, and so on. So a place says what the measurement can tell: a tie is
never decided by the third digit of a mean.

Ties are not transitive: of two models that tie with the best, one may be worse than the other. And
an uncertain model may tie with the best while one with a better mean does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..base.statistics import Interval, paired_difference
from .task_summary import LEVEL, RESAMPLES


@dataclass(frozen=True)
class Place:
    """The place of one model: 1 is the best, and models that tie have the same.

    difference: from the best model, which has None.
    """

    model: str
    place: int
    is_tie: bool
    difference: Interval | None


@dataclass(frozen=True, eq=False)
class Measure:
    """What models are compared by, with the figure of each unit for every model.

    title: for people. unit: what the figures are of, in the plural. figures: by model, the same
    units in the same order; NaN where a unit has none. prefers_low: whether less is better.
    is_log: whether the figures are logarithms, so that their differences are those of ratios.
    """

    title: str
    unit: str
    figures: Mapping[str, Sequence[float]]
    prefers_low: bool = False
    is_log: bool = False

    def places(self) -> list[Place]:
        """The places of the models that have a figure, the best first. Cost: up to two bootstraps
        for each model and place.
        """
        every_figure = {model: np.asarray(row, float) for model, row in self.figures.items()}
        figures = {model: row for model, row in every_figure.items() if np.isfinite(row).any()}
        means = {model: float(np.nanmean(row)) for model, row in figures.items()}
        order = sorted(means, key=lambda model: means[model] if self.prefers_low else -means[model])
        places = list[Place]()
        while order:
            leader, place = order[0], len(places) + 1
            best = places[0].model if places else leader
            group = [model for model in order if model == leader or _tie(figures, model, leader)]
            places += [
                Place(
                    model,
                    place,
                    len(group) > 1,
                    None if model == best else _difference(figures, model, best),
                )
                for model in group
            ]
            order = [model for model in order if model not in group]
        return places

    def entry(self) -> dict[str, Any]:
        """The measure and the places for results.json. Differences of logarithms are given as
        ratios.
        """
        entries = []
        for place in self.places():
            difference = place.difference
            if difference is not None and self.is_log:
                difference = difference.map(math.exp)
            entries.append(
                {
                    "model": place.model,
                    "place": place.place,
                    "tie": place.is_tie,
                    "difference": None if difference is None else difference.as_dict(),
                }
            )
        return {
            "title": self.title,
            "unit": self.unit,
            "prefers": "low" if self.prefers_low else "high",
            "is_ratio": self.is_log,
            "level": LEVEL,
            "resamples": RESAMPLES,
            "places": entries,
        }


Figures = Mapping[str, Float[np.ndarray, " units"]]


def _difference(figures: Figures, model: str, rival: str) -> Interval:
    """The paired difference of two models over the units in which both have a figure; NaN without
    such a unit.
    """
    a, b = figures[model], figures[rival]
    is_common = np.isfinite(a) & np.isfinite(b)
    if not is_common.any():
        return Interval(math.nan, math.nan, math.nan)
    return paired_difference(a[is_common], b[is_common], resamples=RESAMPLES, level=LEVEL)


def _tie(figures: Figures, model: str, rival: str) -> bool:
    """Whether the interval of the difference contains 0. One of a single unit has no ends, so that
    nothing excludes 0.
    """
    difference = _difference(figures, model, rival)
    return not (difference.low > 0 or difference.high < 0)
