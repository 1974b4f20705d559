"""The policy itself writes, in the process that trains it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn

from ...base.errors import BadInput
from ...base.sampling import Sampling
from ...models.sampling import BATCH_SIZE, Rollouts, end_tokens, rollouts
from ...models.text_rows import Ids
from .base import Sampler


class LocalSampler(Sampler):
    """`models.sampling.rollouts` of the trained module: nothing is copied, and no weight is stale.
    After `update_weights` the module is the one that was given there.

    end_ids: the tokens that end an answer (None: those of the model). batch_size: texts at once.
    Raises BadInput for a model without end token: its answers could never end.
    """

    def __init__(
        self,
        model: nn.Module,
        end_ids: Collection[int] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.model, self.batch_size = model, batch_size
        self.end_ids = check_ends(end_tokens(model) if end_ids is None else end_ids)

    def generate(
        self, prompts: Sequence[Ids], samples: int, sampling: Sampling, seed: int
    ) -> Rollouts:
        device = next(self.model.parameters()).device
        # The cache of the sampling has the dtype of the weights, so nothing is cast on the way.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return rollouts(
                self.model,
                prompts,
                samples,
                sampling,
                seed,
                end_ids=self.end_ids,
                batch_size=self.batch_size,
            )

    def update_weights(self, model: nn.Module) -> None:
        self.model = model


def check_ends(end_ids: Collection[int]) -> Collection[int]:
    """The ids, when there are some."""
    if not end_ids:
        raise BadInput(
            "the model has no end token, so every answer would be cut and counted as wrong; set "
            "eos_token_id in its generation settings, or pass end_ids"
        )
    return end_ids
