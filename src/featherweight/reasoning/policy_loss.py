"""`PolicyLoss`: the loss of a micro-batch of sampled and graded answers.

The batch has `input_ids`, `attention_mask`, `loss_mask` (texts, length; the last true at the tokens
of the answers that count), `advantages` (texts), and, each (texts, length) at the places of the
tokens:

- `old_logprobs`: of the policy before the first update on these answers. Without them the policy is
  that policy, and the ratio is exactly 1.
- `behaviour_logprobs`: of whatever sampled, when that is not the policy itself (an engine with
  rounded weights, other kernels). Each token is then weighed with min(p_old / p_behaviour, `cap`).
- `reference_logprobs`: of the model that the KL is measured from, for `kl` > 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..base.errors import UsageError
from ..training import Loss
from .aggregates import Aggregate
from .logprobs import answer_tokens
from .surrogates import MAX_LOG_RATIO, Surrogate, ratio

MAX_K3 = 10.0


class PolicyLoss(nn.Module):
    """`loss(model, batch) -> Loss`.

    kl: weight of k3, an estimate of KL(policy || reference) from the sampled tokens. temperature:
    of the sampling. cap: the largest weight of a token that another policy sampled. state: of the
    control that gives the advantages, to be saved with the loss. Raises UsageError for settings
    that cannot work, and for `kl` without reference.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        aggregate: Aggregate,
        *,
        kl: float = 0.0,
        temperature: float = 1.0,
        cap: float = 3.0,
        state: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if kl < 0 or cap < 1:
            raise UsageError(f"kl={kl} is at least 0, cap={cap} at least 1")
        self.surrogate, self.aggregate = surrogate, aggregate
        self.kl, self.temperature, self.cap = kl, temperature, cap
        self.state = state
        self._is_checked = False

    def extra_repr(self) -> str:
        """The settings as text; a resumed run compares them."""
        return (
            f"{self.surrogate}, {self.aggregate}, kl={self.kl}, temperature={self.temperature}, "
            f"cap={self.cap}"
        )

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> Loss:
        """The sums over one micro-batch."""
        tokens = answer_tokens(model, batch, self.temperature, check=not self._is_checked)
        self._is_checked = True
        logprobs, text = tokens.logprobs, tokens.text
        old = logprobs.detach()
        if "old_logprobs" in batch:
            old = tokens.select(batch["old_logprobs"])
        advantages = batch["advantages"].to(logprobs.dtype)[text]
        terms = self.surrogate.terms(logprobs, old, advantages, text)
        figures = {"clipped": self.surrogate.is_clipped(logprobs.detach(), old, advantages, text)}
        if "behaviour_logprobs" in batch:
            weight = ratio(old, tokens.select(batch["behaviour_logprobs"])).clamp(max=self.cap)
            terms, figures["behaviour_weight"] = terms * weight, weight
        if self.kl:
            if "reference_logprobs" not in batch:
                raise UsageError(f"kl={self.kl} needs a reference model")
            divergence = k3(logprobs, tokens.select(batch["reference_logprobs"]))
            terms, figures["kl"] = terms + self.kl * divergence, divergence.detach()
        total, weight_sum = self.aggregate(terms, text)
        parts = {"entropy": -logprobs.detach().sum()} | {
            name: figure.float().sum() for name, figure in figures.items()
        }
        # The loop divides parts by the weight of the loss; a mean over tokens is asked for.
        count = max(len(text), 1)
        parts = {name: figure * (weight_sum / count) for name, figure in parts.items()}
        return Loss(total, weight_sum, parts)


def k3(
    logprobs: Float[Tensor, " tokens"], reference: Float[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """exp(d) - d - 1 with d = log p_reference - log p, at most `MAX_K3`: an estimate of the KL
    without bias, and never below 0 (Schulman 2020, "Approximating KL divergence").
    """
    d = (reference - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return (torch.expm1(d) - d).clamp(max=MAX_K3)
