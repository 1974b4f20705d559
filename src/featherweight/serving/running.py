"""The server process: uvicorn around the application until it is told to stop.

SIGINT and SIGTERM stop it from taking new connections; answers under way get `GRACE_SECONDS` to
end, then their clients are cut off, the threads stop and the caches are given back.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress

import uvicorn

from ..base.errors import UsageError
from .app import create_app
from .hosted import HostedModel
from .limits import Limits, check_binding

GRACE_SECONDS = 10


def run(
    models: Iterable[HostedModel],
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    limits: Limits | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until a signal comes; `ready` gets the URL once connections are taken. Port 0 takes a
    free one.

    Raises UsageError for a port that is taken, and for a host that others reach without an API key.
    """
    check_binding(host, api_key)
    app = create_app(models, limits, api_key)
    with listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}"
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
        ready(url)
        # uvicorn shuts down in order and then raises the signal again.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port`; connections wait there until the server takes
    them.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except OSError as error:
        made.close()
        raise UsageError(
            f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}"
        ) from error
    return made
