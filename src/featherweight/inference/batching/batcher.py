"""Many answers from one engine at once: requests come and go while the others run on.

One thread owns the engine. Each of its rounds lets waiting requests into free slots, computes about
one chunk of prompts, and then gives every running answer exactly one token, in calls of at most
`engine.max_batch` sessions. So no answer waits for another to end, a long prompt delays the others
by a chunk at a time, and all advance at the same pace. What a request gets depends on its prompt,
sampling and seed alone and not on its company, as far as the engine keeps its promise that a row of
a batch equals the session computed alone. A request that fails ends with its error; the others go
on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...base.errors import FeatherweightError, UsageError
from ..engine import Engine
from ..generation import Mask
from ..sampling import Sampling
from ..text.tokenizer import ChatTokenizer
from .requests import Cancelled, Deliver, GenerationRequest
from .slots import Slot, Slots

log = logging.getLogger(__name__)


class QueueFull(FeatherweightError):
    """As many requests wait as may; try again later."""


class Closed(FeatherweightError):
    """The batcher no longer takes requests."""


class PromptTooLong(UsageError):
    """The prompt and the tokens asked for do not fit into a slot."""


class Batcher:
    """Serves requests on `slots` sessions of `capacity` tokens (None: the engine's context); at
    most `queue_limit` wait.

    The engine stays the caller's: close the batcher first. Raises MemoryError when the caches do
    not fit.
    """

    def __init__(
        self,
        engine: Engine,
        text: ChatTokenizer,
        slots: int = 8,
        capacity: int | None = None,
        queue_limit: int = 64,
        chunk: int = 128,
    ) -> None:
        for name, value in (("slots", slots), ("capacity", capacity or 2), ("chunk", chunk)):
            if value < 1:
                raise UsageError(f"{name}={value}: at least 1")
        if queue_limit < 0:
            raise UsageError(f"queue_limit={queue_limit}: at least 0")
        self.engine, self.text = engine, text
        self.capacity = engine.context if capacity is None else capacity
        self.queue_limit, self.chunk = queue_limit, chunk
        self._slots = Slots(engine, slots, self.capacity)
        self._filling: deque[Slot] = deque()
        self._running: list[Slot] = []
        self._waiting: deque[GenerationRequest] = deque()
        self._closing = False
        self._bell = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        mask: Mask | None = None,
        deliver: Deliver | None = None,
    ) -> GenerationRequest:
        """Ask for an answer to `prompt`.

        Raises UsageError for a prompt that cannot work, QueueFull, Closed.
        """
        if not prompt:
            raise UsageError("the prompt is empty; give at least one token")
        if len(prompt) + sampling.max_tokens > self.capacity:
            raise PromptTooLong(
                f"the context holds {self.capacity} tokens, and {len(prompt)} of prompt and {sampling.max_tokens} to "
                f"make were asked for ({len(prompt) + sampling.max_tokens}); shorten the prompt or ask for fewer"
            )
        if min(prompt) < 0 or max(prompt) >= self.engine.vocab_size:
            raise UsageError(
                f"the prompt has token ids outside the vocabulary, 0 to {self.engine.vocab_size - 1}"
            )
        request = GenerationRequest(prompt, sampling, self.text, mask, deliver)
        with self._bell:
            if self._closing:
                raise Closed("no new requests are taken: the model is being closed")
            # A free slot takes its request from the queue at the next round, so it counts as room
            # in the queue.
            if len(self._waiting) >= self.queue_limit + self._free():
                raise QueueFull(
                    f"{len(self._waiting)} requests wait already; try again in a moment"
                )
            self._waiting.append(request)
            self._bell.notify()
        return request

    @property
    def slots(self) -> int:
        """How many answers are made at once."""
        return len(self._slots.all)

    @property
    def waiting(self) -> int:
        """Jobs that have no slot yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs that have a slot."""
        return len(self._slots.all) - self._free()

    @property
    def alive(self) -> bool:
        """Whether the thread that serves the requests runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End every request with Closed, stop the thread and give the caches back.

        Does nothing the second time.
        """
        with self._bell:
            self._closing = True
            self._bell.notify()
        self._thread.join()
        self._slots.close()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _free(self) -> int:
        return sum(slot.request is None for slot in self._slots.all)

    def _work(self) -> None:
        while self._admit():
            try:
                self._round()
            except Exception as error:
                log.exception("a round failed; its requests end with the error")
                self._fail_all(error)
        self._fail_all(Closed("the model was closed before the answer was complete"))

    def _admit(self) -> bool:
        """Wait for work, drop what was cancelled, fill free slots; False when it is time to stop."""
        with self._bell:
            self._bell.wait_for(
                lambda: self._closing or self._waiting or self._filling or self._running
            )
            if self._closing:
                return False
            for slot in [*self._filling, *self._running]:
                if slot.request is not None and slot.request.cancelled:
                    self._release(slot, Cancelled("cancelled"))
            for request in [request for request in self._waiting if request.cancelled]:
                self._waiting.remove(request)
                request.fail(Cancelled("cancelled"))
            while self._waiting and (taken := self._slots.take(self._waiting[0])) is not None:
                self._waiting.popleft()
                self._filling.append(taken)
        return True

    def _round(self) -> None:
        # About a chunk of prompts, be it a piece of a long one or several short ones.
        left = self.chunk
        for _ in range(len(self._filling)):
            if left > 0:
                left -= self._fill(self._filling.popleft())
        for group in even_groups(self._running, self.engine.max_batch):
            self._advance(group)

    def _fill(self, slot: Slot) -> int:
        """One chunk of the slot's prompt, and how many tokens it had; after the last one a token is
        chosen.
        """
        request = slot.request
        assert request is not None
        try:
            if not slot.ready:
                slot.keep(request.reused)
            start = len(slot.tokens)
            # At multiples of the chunk, so that prompts are cut in the same places, reused
            # beginning or not.
            end = min(len(request.prompt), (start // self.chunk + 1) * self.chunk)
            tokens = request.prompt[start:end]
            complete = end == len(request.prompt)
            logits = self.engine.forward(slot.session, tokens, "last" if complete else "none")
            slot.tokens.extend(tokens)
        except Exception as error:
            self._release(slot, error)
            return 0
        if complete:
            self._running.append(slot)
            self._choose(slot, logits[0])
        else:
            self._filling.append(slot)
        return len(tokens)

    def _advance(self, group: list[Slot]) -> None:
        """One token for each of the group; when the call fails, each alone, so that only the guilty
        end.
        """
        try:
            rows = self.engine.step([slot.session for slot in group], [slot.next for slot in group])
        except Exception as error:
            if len(group) == 1:
                self._release(group[0], error)
                return
            for slot in group:
                try:
                    slot.keep(len(slot.tokens))
                except Exception as broken:
                    self._release(slot, broken)
                    continue
                self._advance([slot])
            return
        for slot, row in zip(group, rows, strict=True):
            slot.tokens.append(slot.next)
            self._choose(slot, row)

    def _choose(self, slot: Slot, logits: NDArray[np.float32]) -> None:
        request = slot.request
        assert request is not None
        try:
            token = request.advance(logits)
        except Exception as error:
            self._release(slot, error)
            return
        if token is None:
            self._release(slot)
        else:
            slot.next = token

    def _release(self, slot: Slot, error: Exception | None = None) -> None:
        """Take the request out of its slot; after an error other than a cancellation what the slot
        holds is not trusted.
        """
        if slot in self._filling:
            self._filling.remove(slot)
        if slot in self._running:
            self._running.remove(slot)
        request, slot.request = slot.request, None
        if error is None:
            return
        if request is not None:
            request.fail(error)
        if not isinstance(error, Cancelled):
            try:
                slot.clear()
            except Exception:
                # The next request on this slot tries again and, if it must, fails with the reason.
                log.exception("a slot could not be emptied")

    def _fail_all(self, error: Exception) -> None:
        with self._bell:
            for slot in self._slots.all:
                if slot.request is not None:
                    self._release(slot, error)
            while self._waiting:
                self._waiting.popleft().fail(error)


def even_groups(slots: Sequence[Slot], most: int) -> list[list[Slot]]:
    """Consecutive groups of at most `most`, as equal as they can be: 9 by 8 is 5 and 4, not 8 and
    1.
    """
    count = -(-len(slots) // most)
    cuts = [len(slots) * i // count for i in range(count + 1)] if count else [0]
    return [list(slots[a:b]) for a, b in pairwise(cuts)]
