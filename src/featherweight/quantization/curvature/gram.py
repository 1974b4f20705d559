"""Gram: H_I = E[x x^T], the second moment of a layer's inputs; minimising tr(D H_I D^T) keeps the layer's outputs.

Cost: one forward pass without logits, n^2 multiplications a token and distinct input. Layers that read the same
tensor (q/k/v, gate/up) share one matrix. The head's input is the output of the last norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from ...base.events import Listener, track
from ...models import passes
from .base import Curvature, Factors, Sums


@dataclass(frozen=True)
class Gram(Curvature):
    """`batch`: sequences a forward pass."""

    two_sided: ClassVar[bool] = False
    batch: int = 8
    keep_graphs: bool = field(default=False, init=False, repr=False)

    def accumulate(
        self, model: nn.Module, tokens: Tensor, indices: Sequence[int], sums: Sums, listener: Listener
    ) -> None:
        observe = InputObserver(sums)
        steps = range(0, len(indices), self.batch)
        for start in track(steps, "curvature", len(steps), listener):
            part = tokens[list(indices[start : start + self.batch])]
            passes.forward(model, part, observe)
            sums.tokens += part.numel()
            sums.sequences += len(part)

    def factors(self, sums: Sums, name: str) -> Factors:
        return Factors(mean_gram(sums, name), tokens=sums.tokens, sequences=sums.sequences)


class InputObserver:
    """Adds x^T x once for every distinct input tensor; remembers which layers share it."""

    def __init__(self, sums: Sums) -> None:
        self.sums = sums
        self.last: tuple[Tensor, str] | None = None

    def __call__(self, name: str, module: nn.Linear, x: Tensor, g: Tensor | None) -> None:
        if self.last is not None and self.last[0].data_ptr() == x.data_ptr() and self.last[0].shape == x.shape:
            self.sums.owners[name] = self.last[1]
            return
        self.last = (x, name)
        self.sums.owners[name] = name
        flat = x.reshape(-1, x.shape[-1]).float()
        self.sums.add(f"gram/{name}", flat, flat)


def mean_gram(sums: Sums, name: str) -> Float[Tensor, "n n"]:
    """E[x x^T] over all tokens."""
    return sums.symmetric(f"gram/{sums.owners[name]}") / sums.tokens
