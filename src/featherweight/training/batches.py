"""Micro-batches by number. A batch is a function of its number, so a run that was killed continues
with the right one, and every arm of a comparison sees the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..base.errors import UsageError
from ..base.seeds import seed_of


@runtime_checkable
class Batches(Protocol):
    """Anything with a length and items by number: a list, `ShuffledBatches`, a mapped file."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(eq=False)
class ShuffledBatches:
    """Micro-batches of `size` examples, in another order in every epoch.

    examples: anything with a length and items. collate: makes a batch of a list of examples; the
    default stacks tensors. The last examples of an epoch that fill no batch are left out; the next
    epoch has another order. Raises UsageError when there are fewer examples than `size`.
    """

    examples: Batches | Tensor
    size: int
    epochs: int = 1
    seed: int = 0
    collate: Callable[[list[Any]], Any] = torch.stack
    _order: tuple[int, list[int]] = field(default=(-1, []), init=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.size <= len(self.examples):
            raise UsageError(f"batches of {self.size} from {len(self.examples)} examples")

    def __len__(self) -> int:
        return self.epochs * (len(self.examples) // self.size)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        epoch, position = divmod(index, len(self.examples) // self.size)
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "epoch", epoch))
            order = torch.randperm(len(self.examples), generator=generator, device="cpu")
            self._order = (epoch, order.tolist())
        indices = self._order[1][position * self.size : (position + 1) * self.size]
        return self.collate([self.examples[i] for i in indices])


def to_device(batch: Any, device: torch.device) -> Any:
    """`batch` with its tensors on `device`, also inside mappings, lists and tuples; other objects
    are passed on as they are.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if type(batch) in (tuple, list):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
