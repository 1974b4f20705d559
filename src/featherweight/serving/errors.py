"""Errors in the shape that OpenAI's clients read: {"error": {"message", "type", "param", "code"}}.

`from_exception` decides the status: a wrong request is a 4xx, a failure of the server a 5xx.
Clients learn nothing about the machine (paths, tracebacks), except what the messages of our own
errors say.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.responses import Response

from ..base.errors import BadInput, UsageError
from ..inference.batching.batcher import BatcherClosed, PromptTooLong, QueueFull
from ..inference.batching.requests import RequestCancelled

log = logging.getLogger(__name__)

INVALID, SERVER = "invalid_request_error", "server_error"
CLIENT_LEFT = 499  # never sent: for the log and the metrics


class ApiError(Exception):
    """An answer with a status other than 200; `type`, `param` and `code` are OpenAI's fields."""

    def __init__(
        self,
        status: int,
        message: str,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.type, self.param, self.code = type, param, code

    def body(self) -> dict[str, Any]:
        """The JSON object of OpenAI's protocol."""
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
    """The error that the client gets for `error`. An unexpected one is logged in full, and the
    client gets one sentence.
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
    if isinstance(error, BatcherClosed):
        return ApiError(503, "the server is shutting down", SERVER, code="shutting_down")
    if isinstance(error, RequestCancelled):
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
    """`content` as UTF-8 JSON; a lone surrogate becomes a question mark."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", "replace"
    )
