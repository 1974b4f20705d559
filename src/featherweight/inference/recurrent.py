"""Sessions of recurrent models (Mamba and hybrids with it) on the PyTorch engine.

A recurrent layer has one state instead of keys and values of every token, so a state cannot be
rewound. The session therefore keeps the token ids, and computes from the first token again whenever
the state that it has is not that of its text: after a rewind, after `restore`, and when several
tokens follow a state, which some models of transformers continue wrongly (Mamba and Jamba in
5.24; one token at a time is right). Answers are exact, and cost what a plain decode costs; every
rewind to the middle of a text costs the text.

Tokens whose logits nobody asked for (the chunks of a long prompt) are only kept, and computed in
one pass with the next ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.errors import BadInput, UsageError
from .engine import Logits, Session

TOKENS = "tokens"  # the only array of a state
# The longest text of a model whose configuration names no limit, because it has none.
LONGEST_TEXT = 1 << 20


class RecurrentSession(Session):
    """The ids of a text, and the state of the model after the first `num_computed` of them.

    Args: new_cache, makes a cache without tokens; capacity, in tokens; vocab_size, for the ids of
    `restore`. A state is {"tokens": int64 (length,)}: whoever restores it computes it again.
    """

    def __init__(self, new_cache: Callable[[], Any], capacity: int, vocab_size: int) -> None:
        self.capacity, self.length = capacity, 0
        self.cache, self.num_computed = new_cache(), 0
        self._new_cache, self._vocab_size = new_cache, vocab_size
        self._tokens = np.zeros(0, np.int64)

    def pending(self, ids: NDArray[np.int64], logits: Logits) -> NDArray[np.int64]:
        """The tokens that the model must read to append `ids`; none while no logits are needed."""
        if logits == "none":
            return ids[:0]
        if self.num_computed == self.length and (len(ids) == 1 or not self.length):
            return ids
        self.forget()
        return np.concatenate([self._tokens, ids])

    def append(self, ids: NDArray[np.int64], num_read: int) -> None:
        """Count `ids` as part of the text, after the model read `num_read` pending tokens."""
        self._tokens = np.concatenate([self._tokens, ids])
        self.length, self.num_computed = len(self._tokens), self.num_computed + num_read

    def forget(self) -> None:
        """Forget the state, which an interrupted pass leaves between two tokens."""
        self.cache, self.num_computed = self._new_cache(), 0

    def rewind(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise UsageError(f"cannot rewind to {length} tokens: there are {self.length}")
        if length < self.num_computed:
            self.forget()
        self._tokens, self.length = self._tokens[:length], length

    def fork(self) -> RecurrentSession:
        """The ids are copied, and the state is computed again when it is needed."""
        session = RecurrentSession(self._new_cache, self.capacity, self._vocab_size)
        session._tokens, session.length = self._tokens.copy(), self.length
        return session

    def state(self) -> dict[str, NDArray]:
        return {TOKENS: self._tokens.copy()}

    def restore(self, state: dict[str, NDArray], length: int) -> None:
        if length > self.capacity:
            raise UsageError(
                f"a state of {length} tokens does not fit into a session of {self.capacity}"
            )
        if set(state) != {TOKENS}:
            raise BadInput("the state has other arrays than that of a recurrent model")
        tokens = state[TOKENS]
        if tokens.shape != (length,) or tokens.dtype != np.int64:
            raise BadInput(
                f"the state's tokens are {tokens.shape} {tokens.dtype}, not {(length,)} int64"
            )
        if length and not 0 <= tokens.min() <= tokens.max() < self._vocab_size:
            raise BadInput(f"the state has tokens outside the vocabulary of {self._vocab_size}")
        self.forget()
        self._tokens, self.length = tokens.copy(), length

    def close(self) -> None:
        self.forget()
        self._tokens, self.length, self.capacity = np.zeros(0, np.int64), 0, 0
