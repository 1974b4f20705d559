"""What the loop yields after each optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One optimizer step, after it happened.

    number: of this step, from 1; total: of the run. loss: the mean over the units of the optimizer
    batch; parts: those of the loss, as means too. lr: the largest learning rate of the groups.
    gradient_norm: before clipping. units_seen: the weight of all batches of the run so far (for
    losses of tokens: unmasked tokens); units_per_second: of this step, without the caller's time.
    seconds, eta_seconds: since this process began to train, and the estimate until the last step.
    is_skipped: the step was not finite, so the weights are those of before; num_skipped: of all
    steps.
    save(): write the state as it is now, when the loop has a run folder.
    """

    number: int
    total: int
    loss: float
    parts: Mapping[str, float]
    lr: float
    gradient_norm: float
    units_seen: float
    units_per_second: float
    seconds: float
    eta_seconds: float
    is_skipped: bool
    num_skipped: int
    save: Callable[[], None] = field(repr=False, compare=False)

    def values(self) -> dict[str, float]:
        """The measurements of this step by name, as `events.jsonl` has them."""
        return {
            "loss": self.loss,
            **{f"parts/{name}": part for name, part in self.parts.items()},
            "lr": self.lr,
            "gradient_norm": self.gradient_norm,
            "units_seen": self.units_seen,
            "units_per_second": self.units_per_second,
            "num_skipped": self.num_skipped,
        }
