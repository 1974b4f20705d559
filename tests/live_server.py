"""A real server in a thread, on a free port, with fake engines behind it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from busy_engine import BusyEngine

from featherweight.inference.batching.batcher import Batcher
from featherweight.inference.text.tokenizer import ChatTokenizer
from featherweight.serving.app import create_app
from featherweight.serving.hosted_models import HostedModel
from featherweight.serving.limits import Limits
from featherweight.serving.server import listen

JSON = {"Content-Type": "application/json"}


class LiveServer:
    """Answers at `url` until `stop`; `models` are names, each with a fake engine and a batcher of
    its own.
    """

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        models: tuple[str, ...] = ("light",),
        api_key: str | None = None,
        limits: Limits | None = None,
        delay: float = 0.0,
        slots: int = 4,
        queue_limit: int = 50,
        cors_origins: tuple[str, ...] = (),
        context: int = 512,
    ) -> None:
        self.engines = [
            BusyEngine(context=context, delay=delay, excluded_tokens=tuple(tokenizer.end_ids))
            for _ in models
        ]
        self.batchers = [
            Batcher(engine, tokenizer, num_slots=slots, queue_limit=queue_limit)
            for engine in self.engines
        ]
        hosted_models = [
            HostedModel(
                name,
                batcher,
                {"bits": 2.5, "file_bytes": 41_000_000, "role": "original" if i else "light"},
            )
            for i, (name, batcher) in enumerate(zip(models, self.batchers, strict=True))
        ]
        self._listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        settings: dict[str, Any] = {
            "log_level": "critical",
            "lifespan": "on",
            "timeout_graceful_shutdown": 1,
        }
        self._server = uvicorn.Server(
            uvicorn.Config(create_app(hosted_models, limits, api_key, cors_origins), **settings)
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True
        )
        self._thread.start()
        self.engine, self.batcher = self.engines[0], self.batchers[0]

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._listener.close()
        for engine in self.engines:
            engine.close()

    def is_idle(self) -> bool:
        return all(batcher.num_running == batcher.num_waiting == 0 for batcher in self.batchers)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def send(
    server: LiveServer,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] = JSON,
    method: str | None = None,
) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON (or text) and headers."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        response = connection.getresponse()
        data = response.read()
        fields = {name.lower(): value for name, value in response.getheaders()}
        is_json = fields.get("content-type", "").startswith("application/json")
        return response.status, json.loads(data) if is_json and data else data.decode(), fields
    finally:
        connection.close()
