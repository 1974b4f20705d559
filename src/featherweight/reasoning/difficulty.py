"""Buckets of difficulty. They are fixed before the training: by what a model can do now, the
accuracy of a bucket would mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Buckets:
    """borders: the largest difficulty of each bucket but the last, in rising order."""

    borders: tuple[float, ...] = ()

    def __call__(self, difficulty: float | None) -> int:
        """The bucket of a question; 0 when its difficulty is unknown."""
        if difficulty is None:
            return 0
        return sum(difficulty > border for border in self.borders)

    @property
    def count(self) -> int:
        return len(self.borders) + 1


def thirds(difficulties: Sequence[float | None]) -> Buckets:
    """Three buckets of about equally many questions; fewer where the difficulties are too alike or
    unknown.
    """
    numbers = np.array([d for d in difficulties if d is not None], dtype=np.float64)
    if not len(numbers):
        return Buckets()
    levels = np.unique(numbers)
    borders = {float(np.quantile(numbers, share, method="lower")) for share in (1 / 3, 2 / 3)}
    return Buckets(tuple(sorted(b for b in borders if b < levels[-1])))
