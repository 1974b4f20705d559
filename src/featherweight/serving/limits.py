"""What one client may ask for, and how long it may wait: fixed when the server starts."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.errors import UsageError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    body_bytes: the largest body of a request (beyond it 413). body_seconds: the longest time for a
    body to arrive (beyond it 408). answer_seconds: the longest time from the request to its last
    token (beyond it 504). max_tokens: of one answer (None: what the context has left).

    Raises UsageError for limits that cannot work.
    """

    body_bytes: int = 1 << 20
    body_seconds: float = 30.0
    answer_seconds: float = 600.0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("body_bytes", "body_seconds", "answer_seconds"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}={getattr(self, name)}: above 0")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"max_tokens={self.max_tokens}: at least 1")


def check_binding(host: str, api_key: str | None) -> None:
    """Raise UsageError when others on the network could use the model without a key, or when
    `api_key` cannot be a key.
    """
    if api_key is not None and not (
        api_key.isascii() and api_key.isprintable() and len(api_key.split()) == 1
    ):
        raise UsageError("the API key should be printable ASCII without spaces")
    if host not in LOOPBACK and api_key is None:
        raise UsageError(
            f"--host {host} lets others on the network in; give an --api-key "
            "(or FEATHERWEIGHT_API_KEY) as well, or leave --host out to serve this machine only"
        )
