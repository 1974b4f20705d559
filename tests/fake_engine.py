"""An engine without a model: the logits depend on the last two tokens only, so texts repeat
themselves.

It counts its calls and refuses what the interface says that an engine refuses. Its state is the
tokens themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.base.errors import BadInput, UsageError
from featherweight.inference.engine import Engine, Session


class FakeSession(Session):
    def __init__(self, engine: FakeEngine, capacity: int) -> None:
        self.engine, self.capacity = engine, capacity
        self.tokens, self.is_closed = list[int](), False

    @property
    def length(self) -> int:  # type: ignore[override]
        return len(self.tokens)

    def rewind(self, length: int) -> None:
        if length > self.length:
            raise UsageError(f"cannot rewind to {length}: there are {self.length} tokens")
        del self.tokens[length:]

    def fork(self) -> FakeSession:
        session = self.engine.session(self.capacity)
        session.tokens = list(self.tokens)
        return session

    def state(self) -> dict[str, Any]:
        return {"tokens": np.array(self.tokens, np.int32), "empty": np.zeros((2, 0), np.float32)}

    def restore(self, state: dict[str, Any], length: int) -> None:
        if set(state) != {"tokens", "empty"} or state["tokens"].shape != (length,):
            raise BadInput("not a state of this engine")
        self.tokens = state["tokens"].tolist()

    def close(self) -> None:
        if not self.is_closed:
            self.engine.num_open_sessions -= 1
        self.is_closed = True


class FakeEngine(Engine):
    def __init__(
        self, vocab_size: int = 300, context: int = 512, seed: int = 0, sharp: float = 3.0
    ) -> None:
        self.vocab_size, self.context, self.max_batch = vocab_size, context, 4
        self.fingerprint, self.description = f"fake-{seed}", "made of random numbers"
        self.seed, self.sharp = seed, sharp
        self.num_computed = self.num_calls = self.num_open_sessions = 0

    def session(self, capacity: int | None = None) -> FakeSession:
        if capacity is not None and capacity > self.context:
            raise UsageError(f"{capacity} tokens are more than {self.context}")
        self.num_open_sessions += 1
        return FakeSession(self, self.context if capacity is None else capacity)

    def row(self, tokens: list[int]) -> Any:
        # There are only 25 different rows, so a text soon meets one again.
        random = np.random.default_rng([self.seed, *(token % 5 for token in tokens[-2:])])
        return (self.sharp * random.standard_normal(self.vocab_size)).astype(np.float32)

    def forward(self, session: Any, tokens: Any, logits: str = "last") -> Any:
        ids = [int(token) for token in tokens]
        if not ids or not all(0 <= id < self.vocab_size for id in ids):
            raise UsageError("no tokens, or outside the vocabulary")
        if session.length + len(ids) > session.capacity:
            raise UsageError("no room")
        self.num_calls += 1
        self.num_computed += len(ids)
        rows = []
        for id in ids:
            session.tokens.append(id)
            rows.append(self.row(session.tokens))
        result = {"last": rows[-1:], "all": rows, "none": []}[logits]
        return np.array(result, np.float32).reshape(-1, self.vocab_size)

    def step(self, sessions: Any, tokens: Any) -> Any:
        return np.concatenate([self.forward(s, [t]) for s, t in zip(sessions, tokens, strict=True)])

    def close(self) -> None:
        pass
