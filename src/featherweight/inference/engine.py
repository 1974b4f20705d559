"""The interface between generation and a model: token ids go in, logits come out, and keys and
values are kept between calls.

There are two engines: `NativeEngine` (C++, imports no torch) and `ReferenceEngine` (PyTorch, the
definition). A `Session` is one text in the making with its KV cache. `forward` appends tokens to
it, `rewind` removes the last ones, and one `step` advances many sessions at once. All arguments and
results are numpy arrays or plain numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Logits = Literal["last", "all", "none"]


class Session(ABC):
    """One text in the making: the keys and values of its first `length` tokens, of at most
    `capacity`.

    Made by `Engine.session`; only the engine that made it can advance it.
    """

    length: int  # tokens whose keys and values are in the KV cache
    capacity: int  # tokens that the KV cache can hold

    @abstractmethod
    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens.

        Raises UsageError when the session has fewer.
        """

    @abstractmethod
    def fork(self) -> Session:
        """A new session of the same capacity with the same tokens, which goes on independently.

        So one prompt is computed once for several answers. The caller must close it. Raises
        MemoryError when there is no memory for its cache.
        """

    @abstractmethod
    def state(self) -> dict[str, NDArray]:
        """A copy of the keys and values by name, to be stored and given to `restore` later.

        Shapes and dtypes depend on the engine, which alone can read them.
        """

    @abstractmethod
    def restore(self, state: dict[str, NDArray], length: int) -> None:
        """Take over the first `length` tokens of another session.

        Args: state, what `state` of a session of the same model returned; length, the number of
        tokens which that session had. Raises BadInput when a name, shape or dtype differs,
        UsageError when `length` is more than the capacity.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the memory; the session cannot be used again. A second call does nothing."""


class Engine(ABC):
    """A loaded model that advances sessions.

    An engine serves one thread at a time; callers must take turns.
    """

    vocab_size: int  # logits of a position
    context: int  # tokens of the longest session that the model supports
    max_batch: int  # sessions that one `step` can advance
    # Changes whenever the same tokens could give other keys and values: with the weights, the
    # settings and the kind of engine, also when the weights are trained in memory.
    fingerprint: str
    description: str  # for people: the model, its bits a weight, and what computes it

    @abstractmethod
    def session(self, capacity: int | None = None) -> Session:
        """A new session without tokens.

        Args: capacity, the number of tokens that its KV cache can hold (None: `context`). Raises
        UsageError when it is more than `context`, MemoryError when there is no memory for the
        cache.
        """

    @abstractmethod
    def forward(
        self, session: Session, tokens: Sequence[int] | NDArray, logits: Logits = "last"
    ) -> NDArray[np.float32]:
        """Append `tokens` to `session` and compute the logits after them.

        Args: tokens (count,), ids of the vocabulary; logits, the positions whose logits are
        returned. Returns (1, vocab) for "last", (count, vocab) for "all", (0, vocab) for "none".
        Raises UsageError, before anything changes, for no tokens, ids outside the vocabulary, or
        more tokens than the capacity has left; BadInput when the weight files have changed on disk.
        """

    @abstractmethod
    def step(self, sessions: Sequence[Session], tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append one token to each of several different sessions.

        Args: sessions, at most `max_batch`, each of them once; tokens, one id for each session.
        Returns the logits (count, vocab). Each row equals what `forward` would give for that
        session, on `NativeEngine` in every bit, on `ReferenceEngine` up to the order of sums.
        Raises as `forward` does.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the memory of the model; its sessions must be closed before. A second call does
        nothing.
        """
