"""The protocol of the samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from ...base.sampling import Sampling
from ...models.sampling import Rollouts
from ...models.text_rows import Ids


class Sampler(ABC):
    """Abstract base.

    is_policy: whether the texts are drawn from the very policy that is trained, so that their
    log-probabilities are its own up to rounding. Where it is False they are a *behaviour* policy's,
    and the loss weighs each token with the ratio of both.
    """

    is_policy: ClassVar[bool] = True

    @abstractmethod
    def generate(
        self, prompts: Sequence[Ids], samples: int, sampling: Sampling, seed: int
    ) -> Rollouts:
        """`samples` texts for each prompt, with log-probabilities at the sampling temperature.

        Raises UsageError for settings that cannot work and for prompts without room in the
        context.
        """

    def update_weights(self, model: nn.Module) -> None:  # noqa: B027 (most have nothing to do)
        """Sample from the weights that `model` has now."""

    def close(self) -> None:  # noqa: B027
        """Release what the sampler holds."""
