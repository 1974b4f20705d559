"""One answer as asyncio sees it: pieces that arrive from the batcher's thread, within a time,
counted on the way.

No thread waits for a piece: the batcher's thread drops it into the event loop. Whatever ends the
reading early (a client that left, a time that ran out, an error) cancels the job, so its slot is
free again at the next round.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from ..inference.batching.requests import Cancelled, Event
from ..inference.generation import Mask, Piece
from ..inference.sampling import Sampling
from .hosted import HostedModel
from .metrics import Metrics

Result = TypeVar("Result")


class Answer:
    """An asynchronous iterator of pieces.

    Raises what `Batcher.submit` does, TimeoutError, and what ended the job.
    """

    def __init__(
        self,
        model: HostedModel,
        prompt: Sequence[int],
        sampling: Sampling,
        metrics: Metrics,
        seconds: float,
        mask: Mask | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._model, self._metrics = model.name, metrics
        self.deadline, self._last = loop.time() + seconds, time.monotonic()
        self._ended, self._first = False, True

        def deliver(event: Event) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        self.job = model.batcher.submit(prompt, sampling, mask, deliver)
        metrics.prompt_tokens.labels(self._model).inc(len(prompt))

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> Piece:
        if self._ended:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout_at(self.deadline):
                event = await self._events.get()
        except BaseException:
            self.cancel()
            raise
        if isinstance(event, Exception):
            self._ended = True
            raise event
        self._count(event)
        self._ended = event.finish is not None
        return event

    def _count(self, piece: Piece) -> None:
        now = time.monotonic()
        if self._first:
            self._metrics.first_token.labels(self._model).observe(now - self._last)
            self._metrics.reused_tokens.labels(self._model).inc(self.job.reused)
        else:
            self._metrics.between_tokens.labels(self._model).observe(now - self._last)
        self._first, self._last = False, now
        self._metrics.completion_tokens.labels(self._model).inc(len(piece.tokens))

    def cancel(self) -> None:
        """No more is wanted; harmless at the end."""
        self._ended = True
        self.job.cancel()

    def usage(self) -> dict[str, Any]:
        """OpenAI's token counts."""
        prompt, made = len(self.job.prompt), self.job.made
        return {
            "prompt_tokens": prompt,
            "completion_tokens": made,
            "total_tokens": prompt + made,
            "prompt_tokens_details": {"cached_tokens": self.job.reused},
        }


async def unless_gone(request: Request, answer: Answer, wanted: Awaitable[Result]) -> Result:
    """What `wanted` gives; Cancelled, with the job cancelled, when the client leaves before."""
    work = asyncio.ensure_future(wanted)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Cancelled("the client left")
        return work.result()
    finally:
        if not work.done():
            answer.cancel()
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
