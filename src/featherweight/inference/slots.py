"""Places for answers in the making: a fixed number of sequences, made once and used again and again.

The memory of all keys and values is therefore decided at the start (slots x capacity). A slot remembers the tokens that
its sequence holds; a new prompt gets the free slot that shares the longest beginning with it and computes only the
rest, so the next turn of a conversation costs the new turn and not the whole talk.
"""

from __future__ import annotations

from collections.abc import Sequence

from .engine import Engine
from .jobs import Job


class Slot:
    """One sequence, the tokens it holds, and the job it works for."""

    def __init__(self, engine: Engine, capacity: int) -> None:
        self._engine, self._capacity = engine, capacity
        self.sequence = engine.sequence(capacity)
        self.tokens: list[int] = []
        self.job: Job | None = None
        self.next = 0  # the token that the job chose last and the sequence does not hold yet
        self.ready = False  # whether the sequence was cut down to what the job's prompt begins with
        self.used = 0  # when it was last taken, for choosing the slot that has been idle longest

    def keep(self, length: int) -> None:
        """Forget all but the first `length` tokens, also what a failed call may have left in the sequence."""
        del self.tokens[length:]
        self.sequence.rewind(length)
        self.ready = True

    def clear(self) -> None:
        """Empty it after a failure, with a new sequence when the old one does not even rewind."""
        self.tokens.clear()
        try:
            self.sequence.rewind(0)
        except Exception:
            self.sequence.close()
            self.sequence = self._engine.sequence(self._capacity)


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

    def take(self, job: Job) -> Slot | None:
        """The free slot that already holds most of the job's prompt, or None when all are at work."""
        free = [slot for slot in self.all if slot.job is None]
        if not free:
            return None
        # At least one token of the prompt has to be computed, for its logits.
        held = {id(slot): shared_start(slot.tokens, job.prompt[:-1]) for slot in free}
        slot = max(free, key=lambda slot: (held[id(slot)], -slot.used))
        self._clock += 1
        slot.used, slot.job, slot.ready = self._clock, job, False
        job.reused = held[id(slot)]
        return slot

    def close(self) -> None:
        """Give the memory back."""
        for slot in self.all:
            slot.sequence.close()


def shared_start(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
