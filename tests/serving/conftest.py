"""Servers for the tests of this folder; each is stopped afterwards, and must have closed all its
sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import tiny

from featherweight.inference.text.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from live_server import LiveServer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.tokenizer().save_pretrained(folder)
    return ChatTokenizer.open(folder)


@pytest.fixture
def start(tokenizer: ChatTokenizer) -> Iterator[Callable[..., LiveServer]]:
    """Start servers with the options of LiveServer."""
    from live_server import LiveServer

    servers: list[LiveServer] = []

    def start(**options: Any) -> LiveServer:
        servers.append(LiveServer(tokenizer, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def _module_server(tokenizer: ChatTokenizer) -> Iterator[LiveServer]:
    from live_server import LiveServer

    server = LiveServer(tokenizer)
    yield server
    server.stop()


@pytest.fixture
def server(_module_server: LiveServer) -> LiveServer:
    """One server for all tests of a file; its engine is reset for each test."""
    _module_server.engine.reset()
    return _module_server
