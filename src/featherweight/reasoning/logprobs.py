"""Log-probabilities of the tokens of answers, at the sampling temperature, in float32 and in chunks
of positions: batch x length x vocabulary is never held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..base.errors import UsageError
from ..ops import divergence
from ..ops.divergence import Projection
from ..training.losses.views import Positions, view

MODEL_KEYS = ("input_ids", "attention_mask", "loss_mask")


@dataclass(frozen=True, eq=False)
class AnswerTokens:
    """The tokens of all answers of a batch in one row.

    logprobs: of each. text: the row of the batch that a token is in. positions: where they are.
    """

    logprobs: Float[Tensor, " tokens"]
    text: Int64[Tensor, " tokens"]
    positions: Positions

    def select(self, rows: Float[Tensor, "texts length"]) -> Float[Tensor, " tokens"]:
        """Of numbers that lie at the tokens they belong to, those of the answers."""
        return self.positions.select(rows.roll(-1, 1))


def answer_tokens(
    model: nn.Module, batch: Mapping[str, Any], temperature: float = 1.0, check: bool = False
) -> AnswerTokens:
    """The answers in `batch`, which has `input_ids`, `attention_mask` and `loss_mask` (texts,
    length), the last true at the tokens of the answers.

    temperature: of the sampling; log-probabilities at another one are those of another policy.
    check, errors: as in `training.losses.views.view`.
    """
    if temperature <= 0:
        raise UsageError(f"temperature={temperature}: greedy texts have no policy gradient")
    positions = Positions({key: batch[key] for key in MODEL_KEYS})
    logits = view(model, positions, (), check).logits
    assert isinstance(logits, Projection)
    if temperature != 1:
        logits = _divide(logits, temperature)
    losses = divergence.row_losses(divergence.cross_entropy, logits, positions.targets)
    text = positions.indices // batch["input_ids"].shape[1]
    return AnswerTokens(-losses, text, positions)


def _divide(logits: Projection, temperature: float) -> Projection:
    """The logits divided by the temperature."""
    if logits.softcap is None:
        return replace(logits, scale=logits.scale / temperature)
    # c tanh(x / c) / T = (c / T) tanh((x / T) / (c / T))
    return replace(logits, scale=logits.scale / temperature, softcap=logits.softcap / temperature)


@torch.no_grad()
def stored_logprobs(
    model: nn.Module, batch: Mapping[str, Any], temperature: float
) -> Float[Tensor, "texts length"]:
    """The log-probabilities of the answers at the places of their tokens, 0 elsewhere."""
    tokens = answer_tokens(model, batch, temperature)
    texts, length = batch["input_ids"].shape
    rows = tokens.logprobs.new_zeros(texts * length)
    rows[tokens.positions.indices + 1] = tokens.logprobs
    return rows.view(texts, length)
