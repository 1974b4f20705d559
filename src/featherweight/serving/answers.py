"""One answer in asyncio: deltas that come from the batcher's thread, with a deadline and metrics.

No thread waits for a delta: the batcher's thread puts it into the event loop. Whatever ends the
reading early (a client that disconnects, the deadline, an error) cancels the request, so its slot
is free again at the next round.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from ..base.sampling import Sampling
from ..inference.answer_builder import Mask, TextDelta
from ..inference.batching.requests import RequestCancelled, StreamEvent
from .hosted_models import HostedModel
from .metrics import Metrics

Result = TypeVar("Result")


class Answer:
    """An asynchronous iterator over the deltas of one answer.

    Args: model, which answers; prompt, token ids; sampling; metrics, where tokens are counted;
    seconds, until the deadline; mask, which tokens may come next. Raises what `Batcher.submit`
    raises, TimeoutError, and the exception that ended the request.
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
        self._events: asyncio.Queue[StreamEvent] = asyncio.Queue()
        self._model, self._metrics = model.name, metrics
        self.deadline = loop.time() + seconds
        self._is_finished, self._is_first = False, True
        self._last_time = time.monotonic()

        def deliver(event: StreamEvent) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._request = model.batcher.submit(prompt, sampling, mask, deliver)
        metrics.prompt_tokens.labels(self._model).inc(len(prompt))

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> TextDelta:
        if self._is_finished:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout_at(self.deadline):
                event = await self._events.get()
        except BaseException:
            self.cancel()
            raise
        if isinstance(event, Exception):
            self._is_finished = True
            raise event
        self._count(event)
        self._is_finished = event.finish is not None
        return event

    def _count(self, delta: TextDelta) -> None:
        time_now = time.monotonic()
        seconds = time_now - self._last_time
        if self._is_first:
            self._metrics.first_token.labels(self._model).observe(seconds)
            self._metrics.cached_tokens.labels(self._model).inc(self._request.cached_tokens)
        else:
            self._metrics.inter_token.labels(self._model).observe(seconds)
        self._is_first, self._last_time = False, time_now
        self._metrics.completion_tokens.labels(self._model).inc(len(delta.tokens))

    def cancel(self) -> None:
        """Ask for no more tokens; does nothing at the end of the answer."""
        self._is_finished = True
        self._request.cancel()

    def usage(self) -> dict[str, Any]:
        """The token counts so far, as OpenAI's `usage` object."""
        prompt_tokens, completion_tokens = len(self._request.prompt), self._request.num_tokens
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self._request.cached_tokens},
        }


async def cancel_on_disconnect(request: Request, answer: Answer, work: Awaitable[Result]) -> Result:
    """The result of `work`.

    Raises RequestCancelled, after the answer is cancelled, when the client disconnects before the
    work is done.
    """
    work_task = asyncio.ensure_future(work)
    disconnect_task = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait((work_task, disconnect_task), return_when=asyncio.FIRST_COMPLETED)
        if not work_task.done():
            raise RequestCancelled("the client left")
        return work_task.result()
    finally:
        if not work_task.done():
            answer.cancel()
        for task in (work_task, disconnect_task):
            task.cancel()
        await asyncio.gather(work_task, disconnect_task, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
