"""One request for text: what was asked for, and the pieces of the answer as they are made.

A request is filled by one thread (the batcher's) and read by another. Whoever reads it iterates
over it, or hands over a `deliver` function that is called with each piece the moment it is there;
an asyncio server passes one that wakes its loop, so that a hundred open answers need no thread
each. The last piece names why the answer ended; an answer that failed ends with an exception
instead.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...base.errors import FeatherweightError
from ..generation import Finish, Mask, Piece
from ..sampling import Sampler, Sampling
from ..text.streaming import TextStream
from ..text.tokenizer import ChatTokenizer


class Cancelled(FeatherweightError):
    """Whoever asked for this answer no longer wants it."""


Event = Piece | Exception
Deliver = Callable[[Event], None]


class GenerationRequest:
    """An answer in the making; iterate over it, or give `deliver`."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        text: ChatTokenizer,
        mask: Mask | None = None,
        deliver: Deliver | None = None,
    ) -> None:
        self.prompt = tuple(prompt)
        self.sampling = sampling
        self.reused = 0  # tokens of the prompt that an earlier answer had left in the cache
        self.tokens: list[int] = []  # chosen so far, the one that ends the text included
        self.cancelled = self.done = False
        self._sampler = Sampler(sampling, self.prompt)
        self._stream = TextStream(text, sampling.stop)
        self._end_ids = text.end_ids
        self._mask = mask
        self._pieces: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._deliver = deliver or self._pieces.put

    def cancel(self) -> None:
        """Ask for no more: the batcher frees the slot before its next round.

        Harmless once the answer has ended.
        """
        self.cancelled = True

    def __iter__(self) -> Iterator[Piece]:
        while True:
            event = self._pieces.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if event.finish:
                return

    @property
    def made(self) -> int:
        """How many tokens were chosen so far."""
        return len(self.tokens)

    def advance(self, logits: NDArray[np.float32]) -> int | None:
        """Choose the next token and deliver what it makes; the token, or None when the answer has
        ended.
        """
        allowed = (
            None if self._mask is None else self._mask(np.array(self.tokens, np.int64), logits)
        )
        choice = self._sampler.choose(logits, allowed)
        self.tokens.append(choice.token)
        finish: Finish | None = None
        if choice.token in self._end_ids:
            finish, shown = "stop", self._stream.finish()
        else:
            shown = self._stream.push(choice.token)
            if not self._stream.stopped and self.made >= self.sampling.max_tokens:
                finish, shown = "length", shown + self._stream.finish()
            if self._stream.stopped:
                finish = "stop"
        self._send(Piece(shown, (choice.token,), (choice,), finish))
        return None if self.done else choice.token

    def fail(self, error: Exception) -> None:
        """End the answer with `error`; only the first end counts."""
        if not self.done:
            self._send(error)

    def _send(self, event: Event) -> None:
        self.done = isinstance(event, Exception) or event.finish is not None
        try:
            self._deliver(event)
        except Exception:
            # The reader is gone (a closed event loop, say); that must not hurt the thread that
            # serves the others.
            self.cancelled = True
