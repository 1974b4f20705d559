"""Slots: a fixed number of sessions that are made once and serve one request after the other.

So the memory of all keys and values (slots x capacity) is reserved at the start. A slot remembers
the tokens that its session holds. A new request gets the free slot with the longest common prefix
with its prompt, and only the other tokens are computed: the next turn of a conversation costs its
own tokens, not those of the whole conversation.
"""

from __future__ import annotations

from ..engine import Engine
from ..prefixes import common_prefix_length
from .requests import GenerationRequest


class Slot:
    """One session, the tokens that it holds, and the request that it serves."""

    def __init__(self, engine: Engine, capacity: int) -> None:
        self._engine, self._capacity = engine, capacity
        self.session = engine.session(capacity)
        self.tokens: list[int] = []
        self.request: GenerationRequest | None = None
        # The token that the request chose last, which the session does not hold yet.
        self.next_token = 0
        # Whether the session holds no more than a prefix of the request's prompt.
        self.is_rewound = False
        self.last_use = 0  # counts assignments, to find the slot that has been idle longest

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens, also what a failed call may have left in the
        session.
        """
        del self.tokens[length:]
        self.session.rewind(length)
        self.is_rewound = True

    def clear(self) -> None:
        """Empty the slot after a failure, with a new session when the old one cannot rewind."""
        self.tokens.clear()
        try:
            self.session.rewind(0)
        except Exception:
            self.session.close()
            self.session = self._engine.session(self._capacity)


class Slots:
    """All slots of a batcher. Raises MemoryError when there is no memory for their caches."""

    def __init__(self, engine: Engine, count: int, capacity: int) -> None:
        self.capacity = capacity
        self._num_assignments = 0
        self.slots: list[Slot] = []
        try:
            for _ in range(count):
                self.slots.append(Slot(engine, capacity))
        except BaseException:
            self.close()
            raise

    def assign(self, request: GenerationRequest) -> Slot | None:
        """Give `request` the free slot with the longest prefix of its prompt; None when no slot is
        free.
        """
        free_slots = [slot for slot in self.slots if slot.request is None]
        if not free_slots:
            return None
        # At least the last token of the prompt is computed, for its logits; all of them are when
        # each is scored.
        reusable_prompt = request.prompt[:-1] if request.scoring is None else ()
        prefix_lengths = {
            id(slot): common_prefix_length(slot.tokens, reusable_prompt) for slot in free_slots
        }
        slot = max(free_slots, key=lambda slot: (prefix_lengths[id(slot)], -slot.last_use))
        self._num_assignments += 1
        slot.last_use, slot.request, slot.is_rewound = self._num_assignments, request, False
        request.cached_tokens = prefix_lengths[id(slot)]
        return slot

    def close(self) -> None:
        """Release the memory."""
        for slot in self.slots:
            slot.session.close()
