"""The routes: OpenAI's, health and metrics, and the page.

A request is read and checked in full, its answer begun, and only when the first piece is there the
response starts, so that whatever goes wrong before is a proper status. After that an error comes as
an event of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from ..base.errors import UsageError
from ..inference.batching.requests import Cancelled
from ..inference.generation import Mask, Piece
from .answers import Answer, unless_gone
from .bodies import read_object
from .errors import CLIENT_LEFT, ApiError, from_exception, to_json
from .guard import Guard
from .hosted import HostedModel, Models
from .limits import Limits
from .metrics import Metrics
from .requests import ChatRequest, CompletionRequest, Generation, read
from .sampling import sampling
from .shapes import ChatShape, CompletionShape, Shape

PAGE = Path(__file__).parent / "page"
# The only files that are served: names from clients never become paths.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
CHAT, COMPLETIONS, MODELS = "/v1/chat/completions", "/v1/completions", "/v1/models"
SLOW_SECONDS = 30  # for a client to take the last of its answer
ROUTES = frozenset({CHAT, COMPLETIONS, MODELS, "/health", "/metrics", *FILES})


class Json(Response):
    """JSON as `to_json` writes it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Bytes of `content`."""
        return to_json(content)


class Service:
    """What the routes share, and what they do."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.metrics = Metrics(models, ROUTES)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await _told(self._chat(request))

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        return await _told(self._complete(request))

    async def _chat(self, request: Request) -> Response:
        asked = read(ChatRequest, await read_object(request, self.limits))
        model = self.models.find(asked.model)
        turns = [{"role": turn.role, "content": turn.content} for turn in asked.messages]
        # In a thread: a long conversation takes a while, and the others' pieces should not wait for
        # it.
        prompt = await asyncio.to_thread(model.batcher.text.chat, turns)
        mask = None
        if (
            asked.response_format is not None
            and (schema := asked.response_format.schema_wanted()) is not None
        ):
            mask = await asyncio.to_thread(_follow, schema, model)
        shape = ChatShape(model.name, model.batcher.text, asked.logprobs)
        return await self._answer(request, asked, model, prompt, shape, mask)

    async def _complete(self, request: Request) -> Response:
        asked = read(CompletionRequest, await read_object(request, self.limits))
        model = self.models.find(asked.model)
        prompt: Iterable[int]
        if isinstance(asked.prompt, str):
            prompt = await asyncio.to_thread(model.batcher.text.encode, asked.prompt)
        else:
            prompt = asked.prompt
        shape = CompletionShape(model.name, model.batcher.text, asked.logprobs is not None)
        return await self._answer(request, asked, model, prompt, shape)

    async def _answer(
        self,
        request: Request,
        asked: Generation,
        model: HostedModel,
        prompt: Iterable[int],
        shape: Shape,
        mask: Mask | None = None,
    ) -> Response:
        ids = list(prompt)
        wanted = sampling(asked, len(ids), model.batcher.capacity, self.limits)
        answer = Answer(model, ids, wanted, self.metrics, self.limits.answer_seconds, mask)
        if asked.stream:
            first = await unless_gone(request, answer, answer.__anext__())
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            return EventStream(answer, first, shape, usage)
        pieces = await unless_gone(request, answer, _all(answer))
        return Json(shape.whole(pieces, answer.usage()))

    async def list_models(self) -> Response:
        """GET /v1/models."""
        return Json({"object": "list", "data": [model.described() for model in self.models]})

    async def show_model(self, name: str) -> Response:
        """GET /v1/models/NAME; names may hold slashes."""
        return await _told(self._show_model(name))

    async def _show_model(self, name: str) -> Response:
        return Json(self.models.find(name).described())

    async def health(self) -> Response:
        """GET /health: 200 while every model's thread runs."""
        alive = all(model.batcher.alive for model in self.models)
        return Json({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    async def show_metrics(self) -> Response:
        """GET /metrics."""
        return Response(self.metrics.text(), headers={"Content-Type": self.metrics.content_type})


async def _told(response: Awaitable[Response]) -> Response:
    """The response, or what went wrong in its place."""
    try:
        return await response
    except Exception as error:
        found = from_exception(error)
        # Nobody reads this one; the guard counts it.
        return (
            Response(status_code=CLIENT_LEFT) if found.status == CLIENT_LEFT else found.response()
        )


def _follow(schema: dict[str, Any], model: HostedModel) -> Mask:
    """What keeps an answer on the schema.

    Raises ApiError when it cannot be used, or the extra is not installed.
    """
    from ..inference.text.json_schema import JsonSchema

    try:
        return JsonSchema(model.batcher.text, schema, model.batcher.engine.vocab_size)
    except UsageError as error:
        raise ApiError(400, str(error), param="response_format", code="invalid_value") from error


async def _all(answer: Answer) -> list[Piece]:
    return [piece async for piece in answer]


class EventStream(Response):
    """Server-sent events, one a chunk, ended by [DONE]; a client that leaves cancels the answer."""

    def __init__(self, answer: Answer, first: Piece, shape: Shape, usage: bool) -> None:
        super().__init__(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            media_type="text/event-stream",
        )
        del self.headers["content-length"]
        self._answer, self._first, self._shape, self._usage = answer, first, shape, usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # A client that stays and reads nothing gets no more time than the others.
            async with asyncio.timeout_at(self._answer.deadline + SLOW_SECONDS):
                await unless_gone(Request(scope, receive), self._answer, self._write(send))
        except (Cancelled, OSError, TimeoutError):
            pass
        finally:
            self._answer.cancel()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for event in self._events():
            await send(
                {
                    "type": "http.response.body",
                    "body": b"data: " + event + b"\n\n",
                    "more_body": True,
                }
            )
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncIterator[bytes]:
        for chunk in (*self._shape.opening(), *self._shape.chunk(self._first)):
            yield to_json(chunk)
        try:
            async for piece in self._answer:
                for chunk in self._shape.chunk(piece):
                    yield to_json(chunk)
            if self._usage:
                yield to_json(self._shape.usage_chunk(self._answer.usage()))
        except Exception as error:
            yield to_json(from_exception(error).body())
        yield b"[DONE]"


def create_app(
    models: Iterable[HostedModel], limits: Limits | None = None, api_key: str | None = None
) -> FastAPI:
    """The ASGI application.

    The batchers stay the caller's; they are closed when the server shuts down.
    """
    service = Service(Models(models), limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for model in service.models:
            await asyncio.to_thread(model.batcher.close)

    # No generated documentation: its pages load scripts from elsewhere.
    app = FastAPI(
        title="featherweight",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        middleware=[Middleware(Guard, metrics=service.metrics, api_key=api_key)],
    )
    app.add_api_route(CHAT, service.chat, methods=["POST"], response_model=None)
    app.add_api_route(COMPLETIONS, service.complete, methods=["POST"], response_model=None)
    app.add_api_route(MODELS, service.list_models, methods=["GET"], response_model=None)
    app.add_api_route(
        MODELS + "/{name:path}", service.show_model, methods=["GET"], response_model=None
    )
    app.add_api_route("/health", service.health, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", service.show_metrics, methods=["GET"], response_model=None)
    for path, (file, kind) in FILES.items():
        app.add_api_route(path, _file(PAGE / file, kind), methods=["GET"], response_model=None)
    app.add_exception_handler(HTTPException, _no_route)
    app.state.service = service
    return app


def _file(path: Path, kind: str) -> Any:
    async def send() -> Response:
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "no-cache"})

    return send


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    what = "does not take this method" if status == 405 else "is not here"
    return ApiError(status, f"{request.url.path[:200]} {what}", code="unknown_url").response()
