"""Answers as server-sent events, one a chunk; a client that leaves cancels them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..inference.answer_builder import TextDelta
from ..inference.batching.requests import RequestCancelled
from .answers import Answers, cancel_on_disconnect
from .errors import from_exception, to_json
from .shapes import Shape

SLOW_CLIENT_SECONDS = 30  # for a client to read the end of its answer after the deadline


class EventStream(Response):
    """The chunks of a shape as they are made.

    Args: answers, whose first delta was read already; first, that delta with the number of its
    answer; with_usage, whether the client asked for the token counts.
    """

    def __init__(
        self, answers: Answers, first: tuple[int, TextDelta], shape: Shape, with_usage: bool
    ) -> None:
        super().__init__(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            media_type="text/event-stream",
        )
        del self.headers["content-length"]
        self._answers, self._first = answers, first
        self._shape, self._with_usage = shape, with_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # A client that stays connected and does not read has a deadline too.
            async with asyncio.timeout_at(self._answers.deadline + SLOW_CLIENT_SECONDS):
                request = Request(scope, receive)
                await cancel_on_disconnect(request, self._answers, self._write(send))
        except (RequestCancelled, OSError, TimeoutError):
            pass
        finally:
            self._answers.cancel()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for event in self._events():
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncIterator[bytes]:
        for chunk in (*self._shape.first_chunks(), *self._shape.chunks(*self._first)):
            yield self._event(chunk)
        try:
            async for number, delta in self._answers:
                for chunk in self._shape.chunks(number, delta):
                    yield self._event(chunk)
            for chunk in self._shape.last_chunks(self._answers.usage(), self._with_usage):
                yield self._event(chunk)
        except Exception as error:
            yield self._event(self._shape.error_chunk(from_exception(error)))
        if self._shape.ends_with_done:
            yield b"data: [DONE]\n\n"

    def _event(self, chunk: dict[str, Any]) -> bytes:
        name = b"event: %b\n" % chunk["type"].encode() if self._shape.names_events else b""
        return name + b"data: " + to_json(chunk) + b"\n\n"
