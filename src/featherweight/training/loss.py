"""What a loss returns. The loop knows nothing else about models and batches: no tokens, no
transformers.

    def loss(model, batch):                     # a loss of images, say
        images, labels = batch
        losses = F.cross_entropy(model(images), labels, reduction="none")
        return Loss(losses.sum(), weight=len(labels))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Loss:
    """The sums of one micro-batch.

    total: the sum, over the units of the micro-batch, of what is minimised; a scalar with a graph.
    weight: the number of units: unmasked tokens, images, moves. The loop divides by the weight of
    the whole optimizer batch, so neither the micro-batches nor the ranks change the mean. With the
    default 1, each micro-batch is one unit. parts: named sums over the same units, for the report.
    """

    total: Tensor
    weight: Tensor | float = 1.0
    parts: Mapping[str, Tensor] = field(default_factory=dict)


# A loss with state (learned projections, buffers) is an nn.Module; its state is saved with the
# model's.
LossFunction = Callable[[nn.Module, Any], Loss]
