"""An engine without a model: logits are a function of all tokens so far, so a mistake in the
bookkeeping changes the text.

It insists on what real engines need (one thread at a time, different sessions in a step, no more
than the capacity), notes what it was asked to do, and fails on demand.
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
        self.capacity, self.tokens, self.closed = capacity, [], False

    @property
    def length(self) -> int:  # type: ignore[override]
        return len(self.tokens)

    def rewind(self, length: int) -> None:
        if length > len(self.tokens):
            raise UsageError(f"cannot rewind to {length}")
        del self.tokens[length:]

    def state(self) -> dict[str, NDArray]:
        return {"tokens": np.array(self.tokens)}

    def restore(self, state: dict[str, NDArray], length: int) -> None:
        self.tokens = state["tokens"][:length].tolist()

    def close(self) -> None:
        self.closed = True


class BusyEngine(Engine):
    """Fails and is slow on demand.

    `delay` seconds a call; `poison`: a token whose session fails; `broken`: everything fails;
    `never`: tokens that are unlikely.
    """

    fingerprint = "fake"
    description = "a fake, 2-bit"

    def __init__(
        self,
        vocab_size: int = 300,
        context: int = 512,
        max_batch: int = 4,
        delay: float = 0.0,
        never: tuple[int, ...] = (),
    ) -> None:
        self.vocab_size, self.context, self.max_batch = vocab_size, context, max_batch
        self.usual_delay, self.usually_never = delay, never
        self.reset()
        self.calls: list[tuple[str, int]] = []
        self.sessions: list[BusySession] = []
        self._busy = threading.Lock()

    def reset(self) -> None:
        """Forget what a test changed."""
        self.delay, self.never = self.usual_delay, self.usually_never
        self.poison: int | None = None
        self.broken = False

    def session(self, capacity: int | None = None) -> BusySession:
        if (capacity or 1) > self.context:
            raise UsageError("more than the context")
        self.sessions.append(BusySession(capacity or self.context))
        return self.sessions[-1]

    def forward(
        self, session: Any, tokens: Sequence[int] | NDArray, logits: Logits = "last"
    ) -> NDArray[np.float32]:
        return self._call("forward", [session], [list(tokens)])[: 1 if logits == "last" else 0]

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
            if self.broken:
                raise BadInput("model.safetensors has changed: it is shorter than it was")
            for session, new in zip(sessions, tokens, strict=True):
                assert not session.closed
                if session.length + len(new) > session.capacity:
                    raise UsageError("more than the capacity")
                session.tokens += (
                    new  # as a real engine might leave it when another session of the call fails
                )
                if self.poison in new:
                    raise BadInput("this one fails")
            return np.stack([self.logits(session.tokens) for session in sessions])
        finally:
            self._busy.release()

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        made = (
            np.random.default_rng([len(tokens), *tokens[-64:], sum(tokens)]).normal(
                size=self.vocab_size
            )
            * 3
        )
        made[list(self.never)] = -50
        if self.poison is not None:
            made[self.poison] = -50
        return made.astype(np.float32)

    def close(self) -> None:
        assert all(session.closed for session in self.sessions)
