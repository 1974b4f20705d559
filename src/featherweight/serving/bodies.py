"""From the bytes that a client sends to a JSON object, within limits. Clients are not trusted.

A body has a largest size and a longest time to arrive. It must be declared as JSON: a page of
another site may send that only after asking the server, which allows it to named sites only. It
must be UTF-8 with complete characters, and hold one object.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from .errors import CLIENT_LEFT, ApiError
from .limits import Limits


async def read_object(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object in the body of `request`. Raises ApiError 400, 408, 413 or 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"the body should be application/json, not {kind or 'of unknown type'}")
    try:
        async with asyncio.timeout(limits.body_seconds):
            data = await _read(request, limits.body_bytes)
    except TimeoutError:
        raise ApiError(
            408, f"the body did not arrive within {limits.body_seconds:g} seconds"
        ) from None
    except ClientDisconnect:
        raise ApiError(CLIENT_LEFT, "the client left") from None
    return parse(data)


async def _read(request: Request, max_bytes: int) -> bytes:
    content_length = request.headers.get("content-length", "0")
    if content_length.isdecimal() and int(content_length[:20]) > max_bytes:
        raise _too_large_error(max_bytes)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes:
            raise _too_large_error(max_bytes)
    return bytes(data)


def _too_large_error(max_bytes: int) -> ApiError:
    return ApiError(413, f"the body is larger than {max_bytes} bytes", code="body_too_large")


def parse(data: bytes) -> dict[str, Any]:
    """The object in UTF-8 JSON. Raises ApiError 400."""
    try:
        body = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
        # JSON can spell half a character (\ud800), which no tokenizer accepts.
        json.dumps(body, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(
            400, f"the body is not valid UTF-8: {error.reason} at byte {error.start}"
        ) from None
    except UnicodeEncodeError:
        raise ApiError(400, "the body holds half a character (a lone surrogate)") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body should be a JSON object")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
