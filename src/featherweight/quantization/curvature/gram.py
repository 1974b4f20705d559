"""Gram: H_I = E[x x^T], the second moment of a layer's inputs. tr(D H_I D^T) is the mean squared
error of the layer's outputs.

Cost: one forward pass without logits, and n^2 multiplications for each token and distinct input
tensor. Layers that read the same tensor (q/k/v, gate/up) share one matrix. The input of the head is
the output of the last norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from ...base.events import Listener, track
from ...models import structure
from ...models.anatomy import Anatomy
from ...models.observe import Site, observe, sites
from .base import Curvature, Factors, Sums, block_activation_bytes


@dataclass(frozen=True)
class Gram(Curvature):
    """The second moment of each layer's inputs. `batch`: number of sequences in a forward pass."""

    two_sided: ClassVar[bool] = False
    batch: int = 8

    def memory(self, anatomy: Anatomy, length: int) -> int:
        sums = self.sums_bytes(anatomy)
        return max(sums + block_activation_bytes(anatomy, self.batch * length), sums + sums // 2)

    def accumulate(
        self,
        model: nn.Module,
        tokens: Tensor,
        indices: Sequence[int],
        sums: Sums,
        listener: Listener,
    ) -> None:
        observer, inputs = InputObserver(sums), input_sites(model)
        steps = range(0, len(indices), self.batch)
        for start in track(steps, "curvature", len(steps), listener):
            part = tokens[list(indices[start : start + self.batch])]
            observe(model, part, inputs, observer, check_finite=True, require_all=False)
            sums.tokens += part.numel()
            sums.sequences += len(part)

    def factors(self, sums: Sums, name: str) -> Factors:
        return Factors(mean_gram(sums, name), tokens=sums.tokens, sequences=sums.sequences)


def input_sites(model: nn.Module) -> list[Site]:
    """The inputs of the linear layers inside the blocks and of the head, also when it is tied."""
    head = structure.head(model)
    return [site for site in sites(model, "input") if site.block is not None or site.name == head]


class InputObserver:
    """Adds x^T x to `sums` once for every distinct input tensor, and notes in `sums.owners` which
    layers share it.
    """

    def __init__(self, sums: Sums) -> None:
        self.sums = sums
        self.last: tuple[Tensor, str] | None = None

    def __call__(self, site: Site, x: Tensor, gradient: Tensor | None) -> None:
        # Layers that share an input are observed one after the other. A reference to the tensor is
        # kept, because a freed tensor's address could be used for another one.
        if (
            self.last is not None
            and self.last[0].data_ptr() == x.data_ptr()
            and self.last[0].shape == x.shape
        ):
            self.sums.owners[site.name] = self.last[1]
            return
        self.last = (x, site.name)
        self.sums.owners[site.name] = site.name
        rows = x.reshape(-1, x.shape[-1]).float()
        self.sums.add(f"gram/{site.name}", rows, rows)


def mean_gram(sums: Sums, name: str) -> Float[Tensor, "n n"]:
    """E[x x^T] over all tokens."""
    return sums.symmetric(f"gram/{sums.owners[name]}") / sums.tokens
