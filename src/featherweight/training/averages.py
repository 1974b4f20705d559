"""The exponential moving average of the weights of a run.

It does not belong to latent weights of few bits: an average of two ternary matrices is no ternary
matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..base.errors import UsageError
from .groups import trainable


class EMA:
    """The exponential moving average of the trainable parameters, in float32.

        average <- d average + (1 - d) parameter,    d = min(decay, (1 + t) / (10 + t))

    The loop updates it after each step that is not skipped, and saves it with the state. The small
    d of the first steps t keeps the start out of it.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise UsageError(f"decay={decay} must lie between 0 and 1")
        self.decay, self.num_updates = decay, 0
        self._parameters = trainable(model)
        self.averages = {
            name: parameter.detach().float().clone() for name, parameter in self._parameters.items()
        }

    def __repr__(self) -> str:
        return f"EMA(decay={self.decay})"

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for name, parameter in self._parameters.items():
            self.averages[name].lerp_(parameter.detach().float(), 1 - decay)

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Inside this context the model has the averages as its parameters."""
        originals = {name: p.detach().clone() for name, p in self._parameters.items()}
        try:
            self._copy(self.averages)
            yield
        finally:
            self._copy(originals)

    @torch.no_grad()
    def _copy(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])
