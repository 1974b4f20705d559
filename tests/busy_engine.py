"""An engine without a model: its logits are a function of all tokens of a session, so a mistake in
the bookkeeping of a session changes the text.

It checks what real engines need (one thread at a time, different sessions in a step, no more than
the capacity), records its calls, and fails on demand.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.base.errors import BadInput, UsageError
from featherweight.inference.engine import Engine, Logits, Session


class BusySession(Session):
    def __init__(self, capacity: int) -> None:
        self.capacity, self.tokens, self.is_closed = capacity, [], False

    @property
    def length(self) -> int:  # type: ignore[override]
        return len(self.tokens)

    def rewind(self, length: int) -> None:
        if length > len(self.tokens):
            raise UsageError(f"cannot rewind to {length}")
        del self.tokens[length:]

    def fork(self) -> BusySession:
        session = BusySession(self.capacity)
        session.tokens = list(self.tokens)
        return session

    def state(self) -> dict[str, NDArray]:
        return {"tokens": np.array(self.tokens)}

    def restore(self, state: dict[str, NDArray], length: int) -> None:
        self.tokens = state["tokens"][:length].tolist()

    def close(self) -> None:
        self.is_closed = True


class BusyEngine(Engine):
    """Fails and is slow on demand.

    delay: seconds of a call. poison: a token whose session fails. is_broken: every call fails.
    excluded_tokens: tokens that are unlikely.
    """

    fingerprint = "fake"
    description = "a fake, 2-bit"

    def __init__(
        self,
        vocab_size: int = 300,
        context: int = 512,
        max_batch: int = 4,
        delay: float = 0.0,
        excluded_tokens: tuple[int, ...] = (),
    ) -> None:
        self.vocab_size, self.context, self.max_batch = vocab_size, context, max_batch
        self._initial_delay, self._initial_excluded_tokens = delay, excluded_tokens
        self.reset()
        self.calls: list[tuple[str, int]] = []
        self.sessions: list[BusySession] = []
        self._busy = threading.Lock()

    def reset(self) -> None:
        """Undo what a test changed."""
        self.delay, self.excluded_tokens = self._initial_delay, self._initial_excluded_tokens
        self.poison: int | None = None
        self.is_broken = False

    def session(self, capacity: int | None = None) -> BusySession:
        if (capacity or 1) > self.context:
            raise UsageError("more than the context")
        self.sessions.append(BusySession(capacity or self.context))
        return self.sessions[-1]

    def forward(
        self, session: Any, tokens: Sequence[int] | NDArray, logits: Logits = "last"
    ) -> NDArray[np.float32]:
        length = session.length
        rows = self._call("forward", [session], [list(tokens)])
        if logits == "all":
            ends = range(length + 1, session.length + 1)
            return np.stack([self.logits(session.tokens[:end]) for end in ends])
        return rows[: 1 if logits == "last" else 0]

    def step(self, sessions: Sequence[Any], tokens: Sequence[int]) -> NDArray[np.float32]:
        assert 1 <= len(sessions) <= self.max_batch
        assert len({id(session) for session in sessions}) == len(sessions)
        return self._call("step", list(sessions), [[token] for token in tokens])

    def _call(
        self, kind: str, sessions: list[BusySession], tokens: list[list[int]]
    ) -> NDArray[np.float32]:
        assert self._busy.acquire(blocking=False), "two threads use the engine at once"
        try:
            self.calls.append((kind, sum(map(len, tokens))))
            time.sleep(self.delay)
            if self.is_broken:
                raise BadInput("model.safetensors has changed: it is shorter than it was")
            for session, new in zip(sessions, tokens, strict=True):
                assert not session.is_closed
                if session.length + len(new) > session.capacity:
                    raise UsageError("more than the capacity")
                # A real engine may leave the tokens when another session of the call fails.
                session.tokens += new
                if self.poison in new:
                    raise BadInput("this one fails")
            return np.stack([self.logits(session.tokens) for session in sessions])
        finally:
            self._busy.release()

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        logits = (
            np.random.default_rng([len(tokens), *tokens[-64:], sum(tokens)]).normal(
                size=self.vocab_size
            )
            * 3
        )
        logits[list(self.excluded_tokens)] = -50
        if self.poison is not None:
            logits[self.poison] = -50
        return logits.astype(np.float32)

    def close(self) -> None:
        assert all(session.is_closed for session in self.sessions)
