"""The middleware around every route: it checks who may use the server, restricts what browsers may
do with its answers, and counts requests.

With a key, `/v1/...` and `/metrics` require `Authorization: Bearer KEY`, compared in constant time;
the page itself and `/health` hold nothing that needs a key. Without a key the server listens on
this machine only, and answers only requests whose Host header names this machine (`localhost`,
`127.0.0.1`). So a page on the web whose domain resolves to 127.0.0.1 is refused. Other sites may
read answers only when the operator has named them, and the content security policy of our own page
forbids everything that does not come from this server.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import CLIENT_LEFT, ApiError
from .limits import LOOPBACK

if TYPE_CHECKING:
    from .metrics import Metrics

PATHS_WITH_KEY = ("/v1", "/metrics")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, api_key: str | None) -> None:
        self._app, self._metrics = app, metrics
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = CLIENT_LEFT

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            if (refusal := self._check(scope)) is not None:
                await refusal.response()(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        finally:
            self._metrics.count(scope["path"], status)

    def _check(self, scope: Scope) -> ApiError | None:
        """Why the request is refused; None when it is allowed."""
        headers = Headers(scope=scope)
        if self._key is None:
            if host_name(headers.get("host", "")) not in LOOPBACK:
                return ApiError(
                    403, "this server answers requests to localhost only", "permission_error"
                )
            return None
        if scope["method"] == "OPTIONS":
            return None  # it tells methods only, and browsers send it without the key
        path = scope["path"]
        if not any(path == start or path.startswith(f"{start}/") for start in PATHS_WITH_KEY):
            return None
        kind, _, key = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(
            key.strip().encode("latin-1", "replace"), self._key
        ):
            return None
        return ApiError(
            401, "give the server's API key", "authentication_error", code="invalid_api_key"
        )


def host_name(header: str) -> str:
    """The name in a Host header, without its port and the brackets of IPv6."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
