"""One forward pass of a transformers model that appends a token to each of several sessions.

Each session keeps its own cache. The pass gets a cache whose layers append the new keys and values
to those of the sessions and then show all of them as one batch, shorter texts with padding on the
left, which a mask hides. Cost beyond the products: the keys and values of one layer at a time are
copied into the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class _Layer(DynamicLayer):
    """Layer `index` of all sessions, of which the longest has `longest` tokens."""

    def __init__(self, caches: Sequence[Cache], longest: int, index: int) -> None:
        super().__init__()
        self.caches, self.longest, self.index = caches, longest, index

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        rows = [
            cache.update(
                key_states[row : row + 1], value_states[row : row + 1], self.index, *args, **kwargs
            )
            for row, cache in enumerate(self.caches)
        ]
        keys, values = (self._batch(tensors) for tensors in zip(*rows, strict=True))
        return keys, values

    def get_seq_length(self) -> int:
        return self.longest

    def _batch(self, tensors: Sequence[Tensor]) -> Tensor:
        """(1, heads, length, width) of each session as one tensor of the greatest length."""
        length = self.longest + 1
        if all(tensor.shape[2] == length for tensor in tensors):
            return torch.cat(list(tensors))
        first = tensors[0]
        batch = first.new_zeros((len(tensors), first.shape[1], length, first.shape[3]))
        for row, tensor in enumerate(tensors):
            batch[row, :, length - tensor.shape[2] :] = tensor[0]
        return batch


def step_arguments(
    caches: Sequence[Cache],
    lengths: Sequence[int],
    num_layers: int,
    cache_name: str,
    device: torch.device,
) -> dict[str, Any]:
    """The arguments, except the ids, of a forward pass that appends one token to each session.

    Args: caches and lengths of the sessions; num_layers and cache_name, the argument that takes the
    cache, of the model.
    """
    longest = max(lengths)
    counts = torch.tensor(lengths, device=device)[:, None]
    arguments: dict[str, Any] = {
        "position_ids": counts,
        cache_name: Cache(layers=[_Layer(caches, longest, index) for index in range(num_layers)]),
    }
    if min(lengths) < longest:
        positions = torch.arange(longest + 1, device=device)
        arguments["attention_mask"] = (positions >= longest - counts).long()
    return arguments
