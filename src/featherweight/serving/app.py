"""The routes: OpenAI's protocol, health and metrics, and the chat page.

A request is read and checked in full and its answer begun before the response starts: the response
waits for the first delta, so that an error before it has a proper status. An error after it is an
event of the stream.
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
from ..inference.answer_builder import Mask, TextDelta
from ..inference.batching.requests import RequestCancelled
from .answers import Answer, cancel_on_disconnect
from .bodies import read_object
from .errors import CLIENT_LEFT, ApiError, from_exception, to_json
from .guard import Guard
from .hosted_models import HostedModel, HostedModels
from .limits import Limits
from .metrics import Metrics
from .requests import BaseRequest, ChatRequest, CompletionRequest, read
from .sampling import to_sampling
from .shapes import ChatShape, CompletionShape, Shape

PAGE = Path(__file__).parent / "page"
# The only files that are served: a name that a client sends never becomes a path.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
CHAT, COMPLETIONS, MODELS = "/v1/chat/completions", "/v1/completions", "/v1/models"
SLOW_CLIENT_SECONDS = 30  # for a client to read the end of its answer after the deadline
ROUTES = frozenset({CHAT, COMPLETIONS, MODELS, "/health", "/metrics", *FILES})


class JsonResponse(Response):
    """JSON as `to_json` writes it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of `content`."""
        return to_json(content)


class Service:
    """The handlers of the routes, and the models, limits and metrics that they share."""

    def __init__(self, models: HostedModels, limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.metrics = Metrics(models, ROUTES)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await _with_error_response(self._chat(request))

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        return await _with_error_response(self._complete(request))

    async def _chat(self, request: Request) -> Response:
        body = read(ChatRequest, await read_object(request, self.limits))
        model = self.models.find(body.model)
        tokenizer = model.batcher.tokenizer
        turns = [{"role": turn.role, "content": turn.content} for turn in body.messages]
        # In a thread: a long conversation takes a while to tokenize, and the deltas of other
        # answers must not wait for it.
        prompt = await asyncio.to_thread(tokenizer.chat, turns)
        mask = None
        if (
            body.response_format is not None
            and (schema := body.response_format.schema_to_follow()) is not None
        ):
            mask = await asyncio.to_thread(_schema_mask, schema, model)
        shape = ChatShape(model.name, tokenizer, body.logprobs)
        return await self._answer(request, body, model, prompt, shape, mask)

    async def _complete(self, request: Request) -> Response:
        body = read(CompletionRequest, await read_object(request, self.limits))
        model = self.models.find(body.model)
        tokenizer = model.batcher.tokenizer
        prompt: Iterable[int]
        if isinstance(body.prompt, str):
            prompt = await asyncio.to_thread(tokenizer.encode, body.prompt)
        else:
            prompt = body.prompt
        shape = CompletionShape(model.name, tokenizer, body.logprobs is not None)
        return await self._answer(request, body, model, prompt, shape)

    async def _answer(
        self,
        request: Request,
        body: BaseRequest,
        model: HostedModel,
        prompt: Iterable[int],
        shape: Shape,
        mask: Mask | None = None,
    ) -> Response:
        ids = list(prompt)
        sampling = to_sampling(body, len(ids), model.batcher.capacity, self.limits)
        answer = Answer(model, ids, sampling, self.metrics, self.limits.answer_seconds, mask)
        if body.stream:
            first_delta = await cancel_on_disconnect(request, answer, answer.__anext__())
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return EventStream(answer, first_delta, shape, with_usage)
        deltas = await cancel_on_disconnect(request, answer, _read_all(answer))
        return JsonResponse(shape.response(deltas, answer.usage()))

    async def list_models(self) -> Response:
        """GET /v1/models."""
        return JsonResponse({"object": "list", "data": [model.entry() for model in self.models]})

    async def show_model(self, name: str) -> Response:
        """GET /v1/models/NAME; names may hold slashes."""
        return await _with_error_response(self._show_model(name))

    async def _show_model(self, name: str) -> Response:
        return JsonResponse(self.models.find(name).entry())

    async def health(self) -> Response:
        """GET /health: 200 while the thread of every model runs, else 503."""
        is_alive = all(model.batcher.is_alive for model in self.models)
        return JsonResponse({"status": "ok" if is_alive else "failed"}, 200 if is_alive else 503)

    async def show_metrics(self) -> Response:
        """GET /metrics."""
        return Response(self.metrics.text(), headers={"Content-Type": self.metrics.content_type})


async def _with_error_response(response: Awaitable[Response]) -> Response:
    """The response, or the one for the exception that it raises."""
    try:
        return await response
    except Exception as error:
        api_error = from_exception(error)
        if api_error.status == CLIENT_LEFT:
            # Nobody reads this response; the guard counts its status.
            return Response(status_code=CLIENT_LEFT)
        return api_error.response()


def _schema_mask(schema: dict[str, Any], model: HostedModel) -> Mask:
    """The mask of an answer that follows a schema.

    Raises ApiError when the schema cannot be used, or the extra is not installed.
    """
    from ..inference.text.json_schema import JsonSchema

    try:
        return JsonSchema(model.batcher.tokenizer, schema, model.batcher.engine.vocab_size)
    except UsageError as error:
        raise ApiError(400, str(error), param="response_format", code="invalid_value") from error


async def _read_all(answer: Answer) -> list[TextDelta]:
    return [delta async for delta in answer]


class EventStream(Response):
    """Server-sent events, one a chunk, ended by [DONE]; a client that leaves cancels the answer."""

    def __init__(
        self, answer: Answer, first_delta: TextDelta, shape: Shape, with_usage: bool
    ) -> None:
        super().__init__(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            media_type="text/event-stream",
        )
        del self.headers["content-length"]
        self._answer, self._first_delta = answer, first_delta
        self._shape, self._with_usage = shape, with_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # A client that stays connected and does not read has a deadline too.
            async with asyncio.timeout_at(self._answer.deadline + SLOW_CLIENT_SECONDS):
                request = Request(scope, receive)
                await cancel_on_disconnect(request, self._answer, self._write(send))
        except (RequestCancelled, OSError, TimeoutError):
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
        for chunk in (*self._shape.first_chunks(), *self._shape.chunks(self._first_delta)):
            yield to_json(chunk)
        try:
            async for delta in self._answer:
                for chunk in self._shape.chunks(delta):
                    yield to_json(chunk)
            if self._with_usage:
                yield to_json(self._shape.usage_chunk(self._answer.usage()))
        except Exception as error:
            yield to_json(from_exception(error).body())
        yield b"[DONE]"


def create_app(
    models: Iterable[HostedModel], limits: Limits | None = None, api_key: str | None = None
) -> FastAPI:
    """The ASGI application.

    Args: models, what it offers; limits of one client (None: the defaults); api_key, what clients
    must send (None: no key). The batchers stay the caller's, and are closed when the server shuts
    down.
    """
    service = Service(HostedModels(models), limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for model in service.models:
            await asyncio.to_thread(model.batcher.close)

    # No generated documentation, because its pages load scripts from other sites.
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
    for path, (file, media_type) in FILES.items():
        app.add_api_route(
            path, _file_route(PAGE / file, media_type), methods=["GET"], response_model=None
        )
    app.add_exception_handler(HTTPException, _http_error)
    app.state.service = service
    return app


def _file_route(path: Path, media_type: str) -> Any:
    async def send_file() -> Response:
        return FileResponse(path, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return send_file


async def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    problem = "does not take this method" if status == 405 else "is not here"
    return ApiError(status, f"{request.url.path[:200]} {problem}", code="unknown_url").response()
