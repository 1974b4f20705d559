"""What generation asks of a model, whoever computes it: token ids in, logits out, keys and values
remembered.

`NativeEngine` (native, imports no torch) and `ReferenceEngine` (PyTorch, the definition) are the
two engines. A `Session` is one text in the making: `forward` appends tokens to it, `rewind` forgets
the last ones, and many sessions may advance together in one `step`. Everything that crosses this
interface is a numpy array or a plain number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Logits = Literal["last", "all", "none"]


class Session(ABC):
    """One text in the making: the keys and values of its first `length` tokens, at most `capacity`
    of them.
    """

    length: int
    capacity: int

    @abstractmethod
    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens. Raises UsageError when there are fewer."""

    @abstractmethod
    def state(self) -> dict[str, NDArray]:
        """A copy of what is remembered, by name, so that it can be kept on disk and `restore`d."""

    @abstractmethod
    def restore(self, state: dict[str, NDArray], length: int) -> None:
        """Become the session whose `state` was taken at `length`.

        Raises BadInput when a name, shape or dtype differs.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the memory back; the session cannot be used again. Does nothing the second time."""


class Engine(ABC):
    """A loaded model that advances sessions; not safe for two threads at once (callers take turns)."""

    vocab_size: int
    context: int  # the longest session that the model was made for
    max_batch: int  # sessions that `step` advances together
    fingerprint: str  # changes whenever the same tokens could leave other keys and values: weights, settings, kind
    description: str  # for people: which model, how many bits, who computes it

    @abstractmethod
    def session(self, capacity: int | None = None) -> Session:
        """An empty session of at most `capacity` tokens (None: `context`).

        Raises UsageError beyond `context`, MemoryError when there is no memory for its cache.
        """

    @abstractmethod
    def forward(
        self, session: Session, tokens: Sequence[int] | NDArray, logits: Logits = "last"
    ) -> NDArray[np.float32]:
        """Append `tokens`; the logits after the last one (1, vocab), after each (count, vocab), or
        none (0, vocab).

        Raises UsageError, before anything changes, for no tokens, ids outside the vocabulary, or
        more tokens than the capacity leaves; BadInput when the weights on disk have changed under
        it.
        """

    @abstractmethod
    def step(self, sessions: Sequence[Session], tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append one token to each of at most `max_batch` different sessions; logits (count,
        vocab).

        Each row equals what `forward` would give for that session alone, bit for bit on
        `NativeEngine`. Raises as `forward`.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the model's memory back; its sessions must be closed first.

        Does nothing the second time.
        """
