"""Servers for the tests of this folder; all of them are stopped afterwards and must have given
everything back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tiny import tokenizer

from featherweight.inference.text.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from live_server import LiveServer


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("text")
    tokenizer().save_pretrained(folder)
    return ChatTokenizer.open(folder)


@pytest.fixture
def start(text: ChatTokenizer) -> Iterator[Callable[..., LiveServer]]:
    """Start servers with the options of LiveServer."""
    from live_server import LiveServer

    servers: list[LiveServer] = []

    def start(**options: Any) -> LiveServer:
        servers.append(LiveServer(text, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def _shared(text: ChatTokenizer) -> Iterator[LiveServer]:
    from live_server import LiveServer

    server = LiveServer(text)
    yield server
    server.stop()


@pytest.fixture
def server(_shared: LiveServer) -> LiveServer:
    """One server for all tests of a file, its engine as new."""
    _shared.engine.reset()
    return _shared
