"""What is minimised at each token: the surrogate of a policy's gain.

A surrogate sees the tokens of the answers as one row of numbers. `logprobs`: of the policy, with a
gradient. `old`: of the policy that the step started from, or that sampled. `advantages`: of the
token's answer. `text`: which answer a token belongs to. The gradient of each at the first update,
when logprobs = old, is that of REINFORCE, -A grad log p, whatever it clips.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..base.errors import UsageError

MAX_LOG_RATIO = 20.0  # exp of it is still finite in float32
Tokens = Float[Tensor, " tokens"]
Texts = Int64[Tensor, " tokens"]


class Surrogate(ABC):
    """Abstract base; the frozen dataclasses below hold the constants."""

    @abstractmethod
    def terms(self, logprobs: Tokens, old: Tokens, advantages: Tokens, text: Texts) -> Tokens:
        """What is minimised, a number a token."""

    @abstractmethod
    def is_clipped(self, logprobs: Tokens, old: Tokens, advantages: Tokens, text: Texts) -> Tensor:
        """True for the tokens whose gradient the bounds remove or shorten."""


@dataclass(frozen=True)
class Clip(Surrogate):
    """-min(w A, clip(w, 1 - low, 1 + high) A), w = p / p_old of the token: PPO (Schulman et al.
    2017, arXiv:1707.06347), with two bounds as in DAPO (arXiv:2503.14476), where high > low lets
    rare tokens grow. GRPO: .2 and .2; DAPO: .2 and .28.
    """

    low: float = 0.2
    high: float = 0.2

    def __post_init__(self) -> None:
        check_bounds(self.low, self.high)

    def terms(self, logprobs: Tokens, old: Tokens, advantages: Tokens, text: Texts) -> Tokens:
        return _clip(ratio(logprobs, old), advantages, self.low, self.high)

    def is_clipped(self, logprobs: Tokens, old: Tokens, advantages: Tokens, text: Texts) -> Tensor:
        return _is_outside(ratio(logprobs, old), advantages, self.low, self.high)


@dataclass(frozen=True)
class SequenceClip(Surrogate):
    """The same with one ratio an answer, s = exp(mean over its tokens of log p / p_old): GSPO
    (arXiv:2507.18071, bounds 3e-4 and 4e-4). Every token of an answer has the answer's term, so
    aggregate with `PerText`.
    """

    low: float = 3e-4
    high: float = 4e-4

    def __post_init__(self) -> None:
        check_bounds(self.low, self.high)

    def terms(self, logprobs: Tokens, old: Tokens, advantages: Tokens, text: Texts) -> Tokens:
        return _clip(self._ratio(logprobs, old, text), advantages, self.low, self.high)

    def is_clipped(self, logprobs: Tokens, old: Tokens, advantages: Tokens, text: Texts) -> Tensor:
        return _is_outside(self._ratio(logprobs, old, text), advantages, self.low, self.high)

    @staticmethod
    def _ratio(logprobs: Tokens, old: Tokens, text: Texts) -> Tokens:
        return mean_by_text(logprobs - old, text).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


@dataclass(frozen=True)
class ClippedWeight(Surrogate):
    """-sg(min(w, high)) A log p: CISPO (MiniMax-M1, arXiv:2506.13585). The weight is bounded and
    not the gradient, so no token is left out. high: ScaleRL's 5.
    """

    high: float = 5.0

    def __post_init__(self) -> None:
        if self.high < 1:
            raise UsageError(f"high={self.high} bounds the ratio itself, so it is at least 1")

    def terms(self, logprobs: Tokens, old: Tokens, advantages: Tokens, text: Texts) -> Tokens:
        weight = ratio(logprobs, old).detach().clamp(max=self.high)
        return -weight * advantages * logprobs

    def is_clipped(self, logprobs: Tokens, old: Tokens, advantages: Tokens, text: Texts) -> Tensor:
        return ratio(logprobs, old) > self.high


def ratio(logprobs: Tokens, old: Tokens) -> Tokens:
    """p / p_old of each token."""
    return (logprobs - old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def mean_by_text(numbers: Tokens, text: Texts) -> Tokens:
    """The mean over the tokens of its answer, at every token."""
    size = int(text.max()) + 1 if len(text) else 0
    sums = torch.zeros(size, dtype=numbers.dtype, device=numbers.device)
    sums = sums.index_add(0, text, numbers)
    counts = torch.bincount(text, minlength=size).clamp(min=1)
    return (sums / counts)[text]


def check_bounds(low: float, high: float) -> None:
    """Raise UsageError for bounds of a ratio that cannot be."""
    if not (0 < low < 1 and high > 0):
        raise UsageError(f"low={low}, high={high}: the ratio is kept in [1 - low, 1 + high]")


def _clip(w: Tokens, advantages: Tokens, low: float, high: float) -> Tokens:
    return -torch.minimum(w * advantages, w.clamp(1 - low, 1 + high) * advantages)


def _is_outside(w: Tokens, advantages: Tokens, low: float, high: float) -> Tensor:
    """Where the minimum is the constant."""
    return ((w > 1 + high) & (advantages > 0)) | ((w < 1 - low) & (advantages < 0))
