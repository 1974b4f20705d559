"""The routes: OpenAI's protocol, health and metrics, and the chat page.

Every path answers OPTIONS with its methods, and HEAD where it answers GET. Other sites may use the
server from a browser only when they were named (`cors_origins`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, Response

from ..base.errors import UsageError
from .errors import ApiError
from .guard import Guard
from .hosted_models import HostedModel, HostedModels
from .limits import Limits
from .service import Service

PAGE = Path(__file__).parent / "page"
# The only files that are served: a name that a client sends never becomes a path.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MODELS = "/v1/models"
ROUTES = frozenset({CHAT, COMPLETIONS, RESPONSES, MODELS, "/health", "/metrics", *FILES})
# Parts of OpenAI's protocol that this server does not have, and what to tell who asks for them.
REFUSED_ENDPOINTS = {
    "/v1/embeddings": "this server makes no embeddings: its models write text",
    "/v1/moderations": "this server judges no texts: its models write text",
    "/v1/images": "this server makes no images: its models write text",
    "/v1/audio": "this server makes no audio: its models write text",
    "/v1/files": "this server stores nothing",
    "/v1/batches": "this server stores nothing; send the requests one by one",
    "/v1/fine_tuning": "this server trains no models",
    "/v1/responses": "this server stores no responses; send the whole conversation as input",
    "/v1/chat/completions": "this server stores no completions",
}
ORIGIN = re.compile(r"https?://[^/\s*?#@]+")


def create_app(
    models: Iterable[HostedModel],
    limits: Limits | None = None,
    api_key: str | None = None,
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    """The ASGI application.

    Args: models, what it offers; limits of one client (None: the defaults); api_key, what clients
    must send (None: no key); cors_origins, the sites (`https://example.org`) whose pages may use
    the server. The batchers stay the caller's, and are closed when the server shuts down. Raises
    UsageError for what is no origin.
    """
    check_origins(cors_origins)
    service = Service(HostedModels(models), limits or Limits(), ROUTES)

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
        middleware=[
            *_cors_middleware(cors_origins),
            Middleware(Guard, metrics=service.metrics, api_key=api_key),
        ],
    )
    _add_route(app, CHAT, service.chat, "POST")
    _add_route(app, COMPLETIONS, service.complete, "POST")
    _add_route(app, RESPONSES, service.respond, "POST")
    _add_route(app, MODELS, service.list_models, "GET", "HEAD")
    _add_route(app, MODELS + "/{name:path}", service.show_model, "GET", "HEAD")
    _add_route(app, "/health", service.health, "GET", "HEAD")
    _add_route(app, "/metrics", service.show_metrics, "GET", "HEAD")
    for path, (file, media_type) in FILES.items():
        _add_route(app, path, _file_route(PAGE / file, media_type), "GET", "HEAD")
    app.add_exception_handler(HTTPException, _http_error)
    app.state.service = service
    return app


def check_origins(origins: Sequence[str]) -> None:
    """Raise UsageError for an origin that is not a scheme and a host (and perhaps a port): each
    site must be named, so `*` is refused as well.
    """
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise UsageError(
                f"{origin!r} is no origin; write a scheme and a host, like https://example.org"
            )


def _cors_middleware(origins: Sequence[str]) -> list[Middleware]:
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
        )
    ]


def _add_route(app: FastAPI, path: str, handler: Callable[..., Any], *methods: str) -> None:
    """A route with its handler, and one that answers OPTIONS with its methods."""

    async def show_methods() -> Response:
        return Response(status_code=204, headers=allow_header)

    allow_header = {"Allow": ", ".join((*methods, "OPTIONS"))}
    app.add_api_route(path, handler, methods=list(methods), response_model=None)
    app.add_api_route(path, show_methods, methods=["OPTIONS"], response_model=None)


def _file_route(path: Path, media_type: str) -> Any:
    async def send_file() -> Response:
        return FileResponse(path, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return send_file


async def _http_error(request: Request, error: Exception) -> Response:
    status, path = getattr(error, "status_code", 404), request.url.path
    if status == 405:
        response = ApiError(405, f"{path[:200]} does not take {request.method}").response()
        allowed_methods = (getattr(error, "headers", None) or {}).get("Allow", "")
        response.headers["Allow"] = ", ".join(
            sorted({*allowed_methods.replace(",", " ").split(), "OPTIONS"})
        )
        return response
    for endpoint, reason in REFUSED_ENDPOINTS.items():
        if path == endpoint or path.startswith(f"{endpoint}/"):
            return ApiError(404, f"{path[:200]}: {reason}", code="unsupported_endpoint").response()
    return ApiError(404, f"{path[:200]} is not here", code="unknown_url").response()
