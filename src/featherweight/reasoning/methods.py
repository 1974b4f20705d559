"""The published methods by name: surrogate x aggregate x scale of the advantages.

method = METHODS["dapo"](limit=256)
loss = PolicyLoss(method.surrogate, method.aggregate)
control = RewardControl(Accuracy(), method.scale, method.drop)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .advantages import Scale
from .aggregates import Aggregate, LocalTokenMean, PerText, PerTextSum, TokenMean
from .surrogates import Clip, ClippedWeight, SequenceClip, Surrogate


@dataclass(frozen=True)
class Method:
    """surrogate, aggregate: of the loss. scale, drop: as in `RewardControl`. kl: weight of the KL
    from the reference. mask_truncated: leave answers that were cut out of the loss.
    """

    surrogate: Surrogate
    aggregate: Aggregate
    scale: Scale = "none"
    drop: bool = False
    kl: float = 0.0
    mask_truncated: bool = False


def grpo(limit: int) -> Method:
    """arXiv:2402.03300."""
    return Method(Clip(), PerText(), "group", kl=0.04)


def dr_grpo(limit: int) -> Method:
    """arXiv:2503.20783: neither divisor depends on the answers. The default."""
    return Method(Clip(0.2, 0.28), PerTextSum(limit))


def dapo(limit: int) -> Method:
    """arXiv:2503.14476."""
    return Method(Clip(0.2, 0.28), TokenMean(), "group", drop=True)


def lite_ppo(limit: int) -> Method:
    """Group mean and batch deviation (arXiv:2508.08221), as in DLER (arXiv:2510.15110)."""
    return Method(Clip(0.2, 0.28), TokenMean(), "batch")


def bnpo(limit: int) -> Method:
    """TRL's name for the mean over the tokens of a micro-batch."""
    return Method(Clip(), LocalTokenMean(), "group")


def gspo(limit: int) -> Method:
    """arXiv:2507.18071."""
    return Method(SequenceClip(), PerText(), "group")


def cispo(limit: int) -> Method:
    """arXiv:2506.13585, with the constants of ScaleRL (arXiv:2510.13786)."""
    return Method(ClippedWeight(), TokenMean(), "batch")


METHODS: dict[str, Callable[[int], Method]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "lite_ppo": lite_ppo,
    "bnpo": bnpo,
    "gspo": gspo,
    "cispo": cispo,
}
