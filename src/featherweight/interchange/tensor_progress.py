"""Progress over the tensors of a model, counted in the order in which they are read."""

from __future__ import annotations

from torch import Tensor

from ..base.events import Event, Listener
from .shards import LazyTensor


class TensorProgress:
    """Sends `listener` one event for each tensor, numbered 1 ... `total`, of the stage `stage`."""

    def __init__(self, stage: str, total: int, listener: Listener) -> None:
        self._stage, self._total, self._listener = stage, total, listener
        self._count = 0
        listener(Event(stage, 0, total))

    def advance(self, name: str) -> None:
        """Report the tensor `name`."""
        self._count += 1
        self._listener(Event(self._stage, self._count, self._total, message=name))

    def observe(self, tensor: LazyTensor) -> LazyTensor:
        """The same tensor, whose `read` also reports it."""

        def read() -> Tensor:
            values = tensor.read()
            self.advance(tensor.name)
            return values

        return LazyTensor(tensor.name, tensor.shape, tensor.dtype, read)
