"""Many answers from one engine at once: requests start and end while others are running.

One thread owns the engine. Each of its rounds gives waiting requests a free slot, computes about
one chunk of prompts, and then computes exactly one token for every running answer, in calls of at
most `engine.max_batch` sessions. So no answer waits for another to end, a long prompt delays the
others by one chunk at a time, and all answers advance at the same pace. An answer depends on its
own prompt, sampling and seed only, as far as the engine computes the same row in a batch as for the
session alone. A request that fails ends with its error; the others go on.
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
from ...base.sampling import Sampling
from ..answer_builder import Mask
from ..engine import Engine, Logits
from ..text.tokenizer import ChatTokenizer
from .requests import Deliver, GenerationRequest, PromptScoring, RequestCancelled
from .slots import Slot, Slots

log = logging.getLogger(__name__)


class QueueFull(FeatherweightError):
    """The queue has reached its limit; the client should try again later."""


class BatcherClosed(FeatherweightError):
    """The batcher takes no more requests."""


class PromptTooLong(UsageError):
    """The prompt and the requested tokens do not fit into a slot."""


class Batcher:
    """Serves requests, several at once, from a thread of its own.

    Args: engine and its tokenizer; num_slots, the number of requests that are served at once;
    capacity, the tokens of prompt and answer that a slot can hold (None: the engine's context);
    queue_limit, the number of requests that may wait for a slot; chunk, the prompt tokens of a
    round. The engine stays the caller's, who must close the batcher first. Raises UsageError for
    sizes that cannot work, MemoryError when there is no memory for the caches.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: ChatTokenizer,
        num_slots: int = 8,
        capacity: int | None = None,
        queue_limit: int = 64,
        chunk: int = 128,
    ) -> None:
        for name, value in (("slots", num_slots), ("capacity", capacity or 2), ("chunk", chunk)):
            if value < 1:
                raise UsageError(f"{name}={value}: at least 1")
        if queue_limit < 0:
            raise UsageError(f"queue_limit={queue_limit}: at least 0")
        self.engine, self.tokenizer = engine, tokenizer
        self.capacity = engine.context if capacity is None else capacity
        self.queue_limit, self.chunk = queue_limit, chunk
        self._slots = Slots(engine, num_slots, self.capacity)
        self._queue: deque[GenerationRequest] = deque()  # requests without a slot
        self._prefill_slots: deque[Slot] = deque()  # their prompt is not complete
        self._decode_slots: list[Slot] = []  # they get one token a round
        self._is_closing = False
        # Guards the queue and `_is_closing`, and wakes the thread when one of them changes.
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        mask: Mask | None = None,
        deliver: Deliver | None = None,
        scoring: PromptScoring | None = None,
    ) -> GenerationRequest:
        """Ask for an answer to `prompt`.

        Args: prompt, token ids; sampling, how to choose tokens and where to stop; mask, which
        tokens may come next; deliver, called with each event of the answer, in the batcher's thread
        (None: iterate over the request); scoring, what to report of the prompt. Raises UsageError
        for a prompt that cannot work, PromptTooLong, QueueFull, BatcherClosed.
        """
        if not prompt:
            raise UsageError("the prompt is empty; give at least one token")
        max_tokens = sampling.max_tokens if scoring is None or scoring.is_answered else 0
        num_tokens = len(prompt) + max_tokens
        if num_tokens > self.capacity:
            raise PromptTooLong(
                f"the context holds {self.capacity} tokens, and {len(prompt)} of prompt and "
                f"{max_tokens} to make were asked for ({num_tokens}); "
                "shorten the prompt or ask for fewer"
            )
        if min(prompt) < 0 or max(prompt) >= self.engine.vocab_size:
            raise UsageError(
                "the prompt has token ids outside the vocabulary, "
                f"0 to {self.engine.vocab_size - 1}"
            )
        request = GenerationRequest(prompt, sampling, self.tokenizer, mask, deliver, scoring)
        with self._condition:
            if self._is_closing:
                raise BatcherClosed("no new requests are taken: the model is being closed")
            # A free slot takes its request from the queue at the next round, so it counts as room
            # in the queue.
            if len(self._queue) >= self.queue_limit + self._num_free_slots():
                raise QueueFull(f"{len(self._queue)} requests wait already; try again in a moment")
            self._queue.append(request)
            self._condition.notify()
        return request

    def submit_all(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]
    ) -> list[GenerationRequest]:
        """Ask for an answer to each prompt; no answer begins before all are in the queue.

        Arguments and errors as in `submit`, with one sampling for each prompt.
        """
        with self._condition:
            return [self.submit(*pair) for pair in zip(prompts, samplings, strict=True)]

    @property
    def num_slots(self) -> int:
        """How many requests are served at once."""
        return len(self._slots.slots)

    @property
    def num_waiting(self) -> int:
        """Requests that have no slot yet."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """Requests that have a slot."""
        return len(self._slots.slots) - self._num_free_slots()

    @property
    def is_alive(self) -> bool:
        """Whether the thread that serves the requests runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End every request with BatcherClosed, stop the thread and release the caches.

        A second call does nothing.
        """
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join()
        self._slots.close()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _num_free_slots(self) -> int:
        return sum(slot.request is None for slot in self._slots.slots)

    def _work(self) -> None:
        while self._admit():
            try:
                self._run_round()
            except Exception as error:
                log.exception("a round failed; its requests end with the error")
                self._fail_all(error)
        self._fail_all(BatcherClosed("the model was closed before the answer was complete"))

    def _admit(self) -> bool:
        """Wait for work, remove cancelled requests, fill free slots; False when the batcher is
        closing.
        """
        with self._condition:
            self._condition.wait_for(
                lambda: self._is_closing or self._queue or self._prefill_slots or self._decode_slots
            )
            if self._is_closing:
                return False
            for slot in [*self._prefill_slots, *self._decode_slots]:
                if slot.request is not None and slot.request.is_cancelled:
                    self._release(slot, RequestCancelled("cancelled"))
            for request in [request for request in self._queue if request.is_cancelled]:
                self._queue.remove(request)
                request.fail(RequestCancelled("cancelled"))
            while self._queue and (free_slot := self._slots.assign(self._queue[0])) is not None:
                self._queue.popleft()
                self._prefill_slots.append(free_slot)
        return True

    def _run_round(self) -> None:
        # Prompts get about a chunk of tokens: part of a long prompt, or several short ones.
        budget = self.chunk
        for _ in range(len(self._prefill_slots)):
            if budget > 0:
                budget -= self._prefill(self._prefill_slots.popleft())
        for group in split_evenly(self._decode_slots, self.engine.max_batch):
            self._decode(group)

    def _prefill(self, slot: Slot) -> int:
        """Compute one chunk of a slot's prompt, and after the last chunk choose a token.

        Returns the number of prompt tokens that were computed.
        """
        request = slot.request
        assert request is not None
        try:
            if not slot.is_rewound:
                slot.rewind(request.cached_tokens)
            start = len(slot.tokens)
            # Chunks end at multiples of their size, so that a prompt is cut at the same places
            # whether or not its prefix was in the cache.
            end = min(len(request.prompt), (start // self.chunk + 1) * self.chunk)
            tokens = request.prompt[start:end]
            is_complete = end == len(request.prompt)
            if request.scoring is not None:
                logits = self.engine.forward(slot.session, tokens, "all")
                request.score_prompt(logits)
            else:
                kind: Logits = "last" if is_complete else "none"
                logits = self.engine.forward(slot.session, tokens, kind)
            slot.tokens.extend(tokens)
        except Exception as error:
            self._release(slot, error)
            return 0
        if is_complete and request.finish_prompt():
            self._release(slot)
        elif is_complete:
            self._decode_slots.append(slot)
            self._choose(slot, logits[-1])
        else:
            self._prefill_slots.append(slot)
        return len(tokens)

    def _decode(self, group: list[Slot]) -> None:
        """One token for each slot of the group. When the call fails, each slot is tried alone, so
        that only those that fail end.
        """
        try:
            rows = self.engine.step(
                [slot.session for slot in group], [slot.next_token for slot in group]
            )
        except Exception as error:
            if len(group) == 1:
                self._release(group[0], error)
                return
            for slot in group:
                try:
                    slot.rewind(len(slot.tokens))
                except Exception as rewind_error:
                    self._release(slot, rewind_error)
                    continue
                self._decode([slot])
            return
        for slot, row in zip(group, rows, strict=True):
            slot.tokens.append(slot.next_token)
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
            slot.next_token = token

    def _release(self, slot: Slot, error: Exception | None = None) -> None:
        """Take the request out of its slot. After an error other than a cancellation the tokens of
        the slot are not reused.
        """
        if slot in self._prefill_slots:
            self._prefill_slots.remove(slot)
        if slot in self._decode_slots:
            self._decode_slots.remove(slot)
        request, slot.request = slot.request, None
        if error is None:
            return
        if request is not None:
            request.fail(error)
        if not isinstance(error, RequestCancelled):
            try:
                slot.clear()
            except Exception:
                # The next request on this slot tries again; if it fails too, it ends with the
                # reason.
                log.exception("a slot could not be emptied")

    def _fail_all(self, error: Exception) -> None:
        with self._condition:
            for slot in self._slots.slots:
                if slot.request is not None:
                    self._release(slot, error)
            while self._queue:
                self._queue.popleft().fail(error)


def split_evenly(slots: Sequence[Slot], max_size: int) -> list[list[Slot]]:
    """Consecutive groups of at most `max_size` slots whose sizes differ by at most one: 9 slots in
    groups of at most 8 are 4 and 5, not 8 and 1.
    """
    num_groups = -(-len(slots) // max_size)
    cuts = [len(slots) * i // num_groups for i in range(num_groups + 1)] if num_groups else [0]
    return [list(slots[start:end]) for start, end in pairwise(cuts)]
