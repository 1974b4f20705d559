"""One request for an answer: the prompt and its sampling, and the deltas of the answer.

One thread, the batcher's, fills a request, and another one reads it. The reader iterates over it,
or gives a `deliver` function, which is called with each delta as soon as there is one. An asyncio
server gives one that wakes its event loop, so that a hundred open answers do not need a thread
each. The last delta says why the answer ended; an answer that failed ends with an exception
instead.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...base.errors import FeatherweightError
from ...base.sampling import Sampling
from ...ops.sampling import Choice, score_token
from ..answer_builder import AnswerBuilder, Mask, TextDelta
from ..text.tokenizer import ChatTokenizer


class RequestCancelled(FeatherweightError):
    """The reader of this answer cancelled it."""


# What a reader gets: deltas, and an exception at the end of an answer that failed.
StreamEvent = TextDelta | Exception
Deliver = Callable[[StreamEvent], None]


@dataclass(frozen=True)
class PromptScoring:
    """What a request wants to know of its prompt.

    top: report the log-probability of each token of the prompt and those of this many most likely
    tokens at its place. is_answered: whether an answer follows; without one the request ends with
    its prompt.
    """

    top: int = 0
    is_answered: bool = True


class GenerationRequest:
    """A request and its answer; made by `Batcher.submit`. Iterate over it for the deltas, unless a
    `deliver` function gets them.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        tokenizer: ChatTokenizer,
        mask: Mask | None = None,
        deliver: Deliver | None = None,
        scoring: PromptScoring | None = None,
    ) -> None:
        self.prompt = tuple(prompt)
        self.scoring = scoring
        self.sampling = sampling
        # Tokens of the prompt whose keys and values an earlier request left in the slot.
        self.cached_tokens = 0
        self.is_cancelled = self.is_finished = False
        self._answer = AnswerBuilder(tokenizer, self.prompt, sampling, mask)
        self._events: queue.SimpleQueue[StreamEvent] = queue.SimpleQueue()
        self._deliver = deliver or self._events.put
        self._prompt_choices = [] if scoring is None else [Choice(self.prompt[0])]

    def cancel(self) -> None:
        """Ask for no more tokens: the batcher frees the slot before its next round.

        Does nothing once the answer has ended.
        """
        self.is_cancelled = True

    def __iter__(self) -> Iterator[TextDelta]:
        while True:
            event = self._events.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if event.finish:
                return

    @property
    def num_tokens(self) -> int:
        """How many tokens of the answer were chosen so far, the end token included."""
        return len(self._answer.tokens)

    def score_prompt(self, rows: NDArray[np.float32]) -> None:
        """Score the next tokens of the prompt by the logits (count, vocab) before each of them; the
        row behind the last token of the prompt is left out.
        """
        assert self.scoring is not None
        start = len(self._prompt_choices)
        for token, row in zip(self.prompt[start:], rows, strict=False):
            self._prompt_choices.append(score_token(token, row, self.scoring.top))

    def finish_prompt(self) -> bool:
        """End a request that asks for no answer; whether it is one."""
        if self.scoring is None or self.scoring.is_answered:
            return False
        self._send(TextDelta("", (), (), "length"))
        return True

    def advance(self, logits: NDArray[np.float32]) -> int | None:
        """Choose the next token from `logits` (vocab,) and deliver what it adds.

        Returns the token, or None when the answer has ended.
        """
        delta = self._answer.add(logits)
        self._send(delta)
        return None if self.is_finished else delta.tokens[0]

    def fail(self, error: Exception) -> None:
        """End the answer with `error`, unless it has ended."""
        if not self.is_finished:
            self._send(error)

    def _send(self, event: StreamEvent) -> None:
        if self._prompt_choices and isinstance(event, TextDelta):
            event, self._prompt_choices = replace(event, prompt=tuple(self._prompt_choices)), []
        self.is_finished = isinstance(event, Exception) or event.finish is not None
        try:
            self._deliver(event)
        except Exception:
            # The reader no longer exists (its event loop is closed, say). The thread that serves
            # the other requests must go on.
            self.is_cancelled = True
