"""Gradients of an optimizer batch: summed over ranks, divided once, measured and clipped.

Every micro-batch adds the gradient of a *sum*. The mean is taken here, by the weight of the whole
optimizer batch, so it depends neither on micro-batches nor on ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import ranks


def reduce(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The gradients of `parameters`, each the sum over the ranks; those without one are left out.

    On several ranks, a parameter that this rank's batches did not use gets a gradient of zeros.
    """
    if ranks.num_ranks() == 1:
        return [p.grad for p in parameters if p.grad is not None]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if ranks.is_sharded(parameter):
            # FSDP2 has taken the mean.
            parameter.grad.mul_(ranks.num_ranks())
        else:
            ranks.sum_over_ranks(parameter.grad)
    return [p.grad for p in parameters if p.grad is not None]


def norm(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together, float32; equal on every rank."""
    sides = {True: [g for g in gradients if ranks.is_sharded(g)]}
    sides[False] = [g for g in gradients if not ranks.is_sharded(g)]
    squares = []
    for is_sharded, side in sides.items():
        if not side:
            continue
        norms = torch.stack([ranks.local(g).float().norm() for g in side])
        square = norms.square().sum()
        squares.append(ranks.sum_over_ranks(square) if is_sharded else square)
    return torch.stack(squares).sum().sqrt()


def scale(gradients: Sequence[Tensor], factor: float) -> None:
    """Multiply the gradients in place."""
    for gradient in gradients:
        ranks.local(gradient).mul_(factor)
