"""What both Fisher collections share: labels sampled from the model itself, the passes, and the absolute scale.

Labels are drawn from the model's own softmax at every position (temperature 1), never taken from the text, so what is
estimated is the true Fisher information: the Hessian of KL(original || light) at the original.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...base.errors import BadInput
from ...base.events import Listener, track
from ...base.seeds import seed_of
from ...models import passes
from .base import Curvature, Factors, Sums
from .gram import InputObserver, mean_gram


@dataclass(frozen=True)
class LabelSampler:
    """Gradient of the summed cross-entropy against labels drawn from the softmax itself: p - onehot(label)."""

    seed: int
    sequences: list[int]

    def __call__(self, logits: Float[Tensor, "batch seq vocab"]) -> Float[Tensor, "batch seq vocab"]:
        if not bool(torch.isfinite(logits).all()):
            raise BadInput(
                "the model's logits are not finite on the calibration text; the model or its dtype overflows"
            )
        gradient = torch.empty_like(logits)
        for row, sequence in enumerate(self.sequences):
            generator = torch.Generator().manual_seed(seed_of("labels", self.seed, sequence))
            p = torch.softmax(logits[row].float(), -1)
            labels = torch.multinomial(p.cpu(), 1, generator=generator).to(p.device)
            p.scatter_add_(1, labels, torch.full_like(labels, -1, dtype=p.dtype))
            gradient[row] = p
        return gradient


@dataclass(frozen=True)
class Fisher(Curvature):
    """Abstract: `seed` draws the labels, one generator a sequence (so sharding changes nothing); `batch` sequences a pass."""

    two_sided: ClassVar[bool] = True
    seed: int = 0
    batch: int = 4
    keep_graphs: bool = True

    @abstractmethod
    def observer(self, sums: Sums) -> Callable[[list[int]], passes.Visitor]:
        """What adds the gradients of one batch to `sums`, given the indices of its sequences."""

    def accumulate(
        self, model: nn.Module, tokens: Tensor, indices: Sequence[int], sums: Sums, listener: Listener
    ) -> None:
        observe, observe_head = self.observer(sums), InputObserver(sums)
        keep_graphs = self.keep_graphs and all(p.dtype == torch.float32 for p in model.parameters())
        steps = range(0, len(indices), self.batch)
        for start in track(steps, "curvature", len(steps), listener):
            chosen = list(indices[start : start + self.batch])
            part = tokens[chosen]
            labels = LabelSampler(self.seed, chosen)
            passes.forward_backward(model, part, labels, observe(chosen), keep_graphs, observe_head)
            sums.tokens += part.numel()
            sums.sequences += len(part)


def two_sided_factors(sums: Sums, name: str, count: int) -> Factors:
    """Factors from sums over `count` samples, with c from matching traces: E||G||^2 a sequence / (tr H_O tr H_I).

    Of the head only the Gram is collected: its output side would be vocabulary x vocabulary.
    """
    if f"output/{name}" not in sums.matrices:
        return Factors(mean_gram(sums, name), tokens=sums.tokens, sequences=sums.sequences)
    h_in = sums.symmetric(f"input/{name}") / count
    h_out = sums.symmetric(f"output/{name}") / count
    h_in, h_out = h_in / h_out.shape[0], h_out / h_in.shape[0]
    traces = float(h_in.diagonal().double().sum() * h_out.diagonal().double().sum())
    scale = sums.numbers[f"squares/{name}"] / sums.sequences / traces if traces > 0 else 0.0
    return Factors(mean_gram(sums, name), h_in, h_out, scale, sums.tokens, sums.sequences)
