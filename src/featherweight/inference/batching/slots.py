"""Places for answers in the making: a fixed number of sessions, made once and used again and again.

The memory of all keys and values is therefore decided at the start (slots x capacity). A slot
remembers the tokens that its session holds; a new prompt gets the free slot that shares the longest
beginning with it and computes only the rest, so the next turn of a conversation costs the new turn
and not the whole talk.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..engine import Engine
from .requests import GenerationRequest


class Slot:
    """One session, the tokens it holds, and the request it works for."""

    def __init__(self, engine: Engine, capacity: int) -> None:
        self._engine, self._capacity = engine, capacity
        self.session = engine.session(capacity)
        self.tokens: list[int] = []
        self.request: GenerationRequest | None = None
        self.next = 0  # the token that the request chose last and the session does not hold yet
        self.ready = (
            False  # whether the session was cut down to what the request's prompt begins with
        )
        self.used = 0  # when it was last taken, for choosing the slot that has been idle longest

    def keep(self, length: int) -> None:
        """Forget all but the first `length` tokens, also what a failed call may have left in the
        session.
        """
        del self.tokens[length:]
        self.session.rewind(length)
        self.ready = True

    def clear(self) -> None:
        """Empty it after a failure, with a new session when the old one does not even rewind."""
        self.tokens.clear()
        try:
            self.session.rewind(0)
        except Exception:
            self.session.close()
            self.session = self._engine.session(self._capacity)


class Slots:
    """All of them. Raises MemoryError when their caches do not fit."""

    def __init__(self, engine: Engine, count: int, capacity: int) -> None:
        self.capacity = capacity
        self._clock = 0
        self.all: list[Slot] = []
        try:
            for _ in range(count):
                self.all.append(Slot(engine, capacity))
        except BaseException:
            self.close()
            raise

    def take(self, request: GenerationRequest) -> Slot | None:
        """The free slot that already holds most of the request's prompt, or None when all are at
        work.
        """
        free = [slot for slot in self.all if slot.request is None]
        if not free:
            return None
        # At least one token of the prompt has to be computed, for its logits.
        held = {id(slot): shared_start(slot.tokens, request.prompt[:-1]) for slot in free}
        slot = max(free, key=lambda slot: (held[id(slot)], -slot.used))
        self._clock += 1
        slot.used, slot.request, slot.ready = self._clock, request, False
        request.reused = held[id(slot)]
        return slot

    def close(self) -> None:
        """Give the memory back."""
        for slot in self.all:
            slot.session.close()


def shared_start(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
