"""FisherA: both Kronecker sides of the Fisher information with tokens taken as independent (YAQA's
sketch A, arXiv:2505.22988), one step of its iteration from the identity on each side.

For the input x and the sampled output gradient g of one token, the token's gradient is g x^T, so
one step gives H_O = E[||x||^2 g g^T] / n and H_I = E[||g||^2 x x^T] / m. Correlations between the
tokens of a sequence are left out. This is biased, but every token is a sample, where `FisherB` has
one sample a sequence. On the few hundred sequences that a CPU affords the variance matters more:
held-out loss and KL were lower than with `FisherB` (docs/log.md), at a lower cost.

c = E||G||^2 / (tr H_O tr H_I), with G summed over a sequence, restores the absolute scale exactly
as in `FisherB`. The Gram of the inputs is collected in the same pass. Cost: forward, backward
without weight gradients, and T (m^2 + n^2) + T^2 (m + n) multiplications for each sequence and
layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Factors, Sums
from .fisher import Fisher, GradientObserver, two_sided_factors


@dataclass(frozen=True)
class FisherA(Fisher):
    """Every token is a sample; arguments as in `Fisher`."""

    def gradient_observer(self, sums: Sums, sequences: list[int]) -> GradientObserver:
        def add(name: str, x: Tensor, g: Tensor) -> None:
            x, g = x.float(), g.float()
            weighted_x = x * g.square().sum(-1, keepdim=True)
            weighted_g = g * x.square().sum(-1, keepdim=True)
            sums.add(f"input/{name}", x.flatten(0, 1), weighted_x.flatten(0, 1))
            sums.add(f"output/{name}", g.flatten(0, 1), weighted_g.flatten(0, 1))
            kernels = (x @ x.transpose(1, 2)) * (g @ g.transpose(1, 2))
            sums.count(f"squares/{name}", float(kernels.sum(dtype=torch.float64)))

        return add

    def factors(self, sums: Sums, name: str) -> Factors:
        return two_sided_factors(sums, name, sums.tokens)
