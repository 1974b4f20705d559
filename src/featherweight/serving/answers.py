"""The answers of one request in asyncio: deltas that come from the batcher's thread, with a
deadline and metrics.

No thread waits for a delta: the batcher's thread puts it into the event loop. Whatever ends the
reading early (a client that disconnects, the deadline, an error) cancels all answers, so their
slots are free again at the next round.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from ..base.sampling import Sampling
from ..inference.answer_builder import Mask, TextDelta
from ..inference.batching.requests import (
    GenerationRequest,
    PromptScoring,
    RequestCancelled,
    StreamEvent,
)
from ..inference.generation import Usage
from .hosted_models import HostedModel
from .metrics import Metrics

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """One answer to make: token ids of the prompt, sampling, the tokens that may come next, and
    what to report of the prompt.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    mask: Mask | None = None
    scoring: PromptScoring | None = None


class Answers:
    """An asynchronous iterator over the deltas of the answers of one request: (number, delta), in
    the order in which they are made.

    Args: model, which answers; jobs, one for each answer; metrics, where tokens are counted;
    seconds, until the deadline; num_tries, how many of the jobs share each prompt. Raises what
    `Batcher.submit` raises, TimeoutError, and the exception that ended an answer, which ends all of
    them.
    """

    def __init__(
        self,
        model: HostedModel,
        jobs: Sequence[Job],
        metrics: Metrics,
        seconds: float,
        num_tries: int = 1,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, StreamEvent]] = asyncio.Queue()
        self._model, self._metrics = model.name, metrics
        self.deadline = loop.time() + seconds
        self._times: dict[int, float] = {}  # of the latest token of each answer
        self._start = time.monotonic()
        self._requests: list[GenerationRequest] = []
        self._num_open, self._num_tries = len(jobs), num_tries
        try:
            for number, job in enumerate(jobs):
                self._requests.append(self._submit(model, number, job, loop))
        except Exception:
            self.cancel()
            raise
        metrics.prompt_tokens.labels(self._model).inc(sum(len(job.prompt) for job in jobs))

    def _submit(
        self, model: HostedModel, number: int, job: Job, loop: asyncio.AbstractEventLoop
    ) -> GenerationRequest:
        def deliver(event: StreamEvent) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, (number, event))

        return model.batcher.submit(job.prompt, job.sampling, job.mask, deliver, job.scoring)

    def __aiter__(self) -> Answers:
        return self

    async def __anext__(self) -> tuple[int, TextDelta]:
        if not self._num_open:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout_at(self.deadline):
                number, event = await self._events.get()
            if isinstance(event, Exception):
                raise event
        except BaseException:
            self.cancel()
            raise
        self._count(number, event)
        self._num_open -= event.finish is not None
        return number, event

    def _count(self, number: int, delta: TextDelta) -> None:
        time_now = time.monotonic()
        if number not in self._times:
            self._metrics.first_token.labels(self._model).observe(time_now - self._start)
            cached_tokens = self._requests[number].cached_tokens
            self._metrics.cached_tokens.labels(self._model).inc(cached_tokens)
        else:
            seconds = time_now - self._times[number]
            self._metrics.inter_token.labels(self._model).observe(seconds)
        self._times[number] = time_now
        self._metrics.completion_tokens.labels(self._model).inc(len(delta.tokens))

    def cancel(self) -> None:
        """Ask for no more tokens; does nothing at the end of the answers."""
        self._num_open = 0
        for request in self._requests:
            request.cancel()

    async def read_all(self) -> list[list[TextDelta]]:
        """The deltas of each answer, when all answers are complete."""
        deltas: list[list[TextDelta]] = [[] for _ in self._requests]
        async for number, delta in self:
            deltas[number].append(delta)
        return deltas

    def usage(self) -> Usage:
        """The token counts so far; a prompt with several answers counts once."""
        prompts = self._requests[:: self._num_tries]
        return Usage(
            sum(len(request.prompt) for request in prompts),
            sum(request.cached_tokens for request in prompts),
            sum(request.num_tokens for request in self._requests),
        )


async def cancel_on_disconnect(
    request: Request, answers: Answers, work: Awaitable[Result]
) -> Result:
    """The result of `work`.

    Raises RequestCancelled, after the answers are cancelled, when the client disconnects before the
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
            answers.cancel()
        for task in (work_task, disconnect_task):
            task.cancel()
        await asyncio.gather(work_task, disconnect_task, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
