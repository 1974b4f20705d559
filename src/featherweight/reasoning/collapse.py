"""Notices that a training destroys what the model could do."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..base.errors import UsageError


@dataclass
class CollapseGuard:
    """Watches the accuracy on held-out questions.

    reference: accuracy before the training; tolerance: in the same unit. It has collapsed when
    `patience` evaluations in a row are below reference - 2 tolerances. best: the step of the best
    evaluation so far, that is the one with the fewest tokens among those with accuracy of at least
    reference - tolerance, and otherwise the most accurate one; 0 is the model before.
    """

    reference: float
    tolerance: float = 0.02
    patience: int = 3
    best: int = 0
    best_tokens: float = float("inf")
    num_low: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.tolerance <= 0 or self.patience < 1:
            raise UsageError(
                f"tolerance={self.tolerance} is above 0, patience={self.patience} at least 1"
            )

    def take(self, step: int, accuracy: float, tokens: float) -> bool:
        """Take an evaluation into account; returns whether the training has collapsed."""
        if accuracy >= self.reference - self.tolerance and tokens < self.best_tokens:
            self.best, self.best_tokens = step, tokens
        self.num_low = self.num_low + 1 if accuracy < self.reference - 2 * self.tolerance else 0
        return self.num_low >= self.patience
