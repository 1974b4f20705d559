"""What goes wrong, in the shape that OpenAI's clients read: {"error": {"message", "type", "param",
"code"}}.

`from_exception` decides the status: what the client asked wrongly is a 4xx, what the server could
not do a 5xx. Nothing about the machine (paths, tracebacks) is told to clients except in the
messages of our own errors.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.responses import Response

from ..base.errors import BadInput, UsageError
from ..inference.batching.batcher import Closed, PromptTooLong, QueueFull
from ..inference.batching.requests import Cancelled

log = logging.getLogger(__name__)

INVALID, SERVER = "invalid_request_error", "server_error"
CLIENT_LEFT = 499  # never sent: for the log and the metrics


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(
        self,
        status: int,
        message: str,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type, self.param, self.code = (
            status,
            message,
            type,
            param,
            code,
        )

    def body(self) -> dict[str, Any]:
        """OpenAI's shape."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> Response:
        """The HTTP response."""
        headers = {"Retry-After": "1"} if self.status in (429, 503) else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(to_json(self.body()), self.status, headers, "application/json")


def from_exception(error: Exception) -> ApiError:
    """What to tell the client about `error`; the unexpected is logged in full and told in one
    sentence.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return ApiError(429, str(error), "rate_limit_error", code="rate_limit_exceeded")
    if isinstance(error, PromptTooLong):
        return ApiError(400, str(error), code="context_length_exceeded")
    if isinstance(error, UsageError):
        return ApiError(400, str(error), code="invalid_value")
    if isinstance(error, TimeoutError):
        return ApiError(
            504, "the answer took longer than this server allows", "timeout", code="timeout"
        )
    if isinstance(error, Closed):
        return ApiError(503, "the server is shutting down", SERVER, code="shutting_down")
    if isinstance(error, Cancelled):
        return ApiError(CLIENT_LEFT, "cancelled", code="cancelled")
    if isinstance(error, BadInput):
        log.error("a request failed: %s", error)
        message = (
            "the model failed at this answer (its file may have changed); the server's log says why"
        )
        return ApiError(500, message, SERVER, code="model_failed")
    log.error("a request failed", exc_info=error)
    return ApiError(
        500, "the server failed at this request; its log says why", SERVER, code="internal_error"
    )


def to_json(content: Any) -> bytes:
    """UTF-8 JSON; a lone surrogate that a client sent comes back as U+FFFD."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", "replace"
    )
