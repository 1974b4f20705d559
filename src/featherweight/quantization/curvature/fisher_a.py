"""FisherA: both Kronecker sides of the Fisher information, where the tokens of a sequence count as
independent samples (sketch A of YAQA, arXiv:2505.22988).

The gradient of one token is g x^T, for its input x and the sampled gradient g of its output. One
step of YAQA's iteration, which starts at the identity on both sides, gives
H_O = E[||x||^2 g g^T] / n and H_I = E[||g||^2 x x^T] / m. The correlations between the tokens of a
sequence are neglected, so the estimate is biased. But every token is a sample, while `FisherB` has
only one sample for each sequence. With the few hundred sequences that a CPU can process, the
smaller variance matters more: held-out loss and KL were lower than with `FisherB` (docs/log.md),
and the collection is cheaper.

The absolute scale is c = E||G||^2 / (tr H_O tr H_I), with G summed over a sequence, exactly as in
`FisherB`. The Gram matrix of the inputs is collected in the same pass. Cost: a forward pass, a
backward pass without weight gradients, and T (m^2 + n^2) + T^2 (m + n) multiplications for each
sequence of T tokens and each layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Factors, Sums
from .fisher import Fisher, GradientObserver, two_sided_factors


@dataclass(frozen=True)
class FisherA(Fisher):
    """The Fisher information with every token as a sample; arguments as in `Fisher`."""

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
