"""The server process: uvicorn around the application until a signal stops it.

After SIGINT or SIGTERM it accepts no new connections. Answers in progress get `GRACE_SECONDS` to
end; then their connections are closed, the threads stop and the caches are released.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import uvicorn

from ..base.errors import UsageError
from .app import create_app
from .hosted_models import HostedModel
from .limits import Limits, check_binding

GRACE_SECONDS = 10


def run(
    models: Iterable[HostedModel],
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    limits: Limits | None = None,
    cors_origins: Sequence[str] = (),
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve `models` until a signal stops it.

    Args: host and port, the address to listen on (port 0: a free port); api_key, what clients must
    send (None: no key, this machine only); limits of one client; cors_origins, the sites whose
    pages may use the server; on_ready, called with the URL once connections are accepted. Raises
    UsageError for a port that is in use, and for a host that others can reach without an API key.
    """
    check_binding(host, api_key)
    app = create_app(models, limits, api_key, cors_origins)
    with listen(host, port) as listener:
        url_host = f"[{host}]" if ":" in host else host
        url = f"http://{url_host}:{listener.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        on_ready(url)
        # uvicorn shuts down in order and then raises the signal again.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port`; connections wait there until the server accepts
    them.

    Raises UsageError when that address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}"
        ) from error
    return listener
