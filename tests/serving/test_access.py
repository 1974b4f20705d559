"""Who may use the server: keys, hosts, other sites, and the methods of each path."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

for extra in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(extra, reason="the extra `serve` is not installed")

from live_server import JSON, LiveServer, send  # noqa: E402

from featherweight.base.errors import UsageError  # noqa: E402
from featherweight.serving.app import check_origins  # noqa: E402
from featherweight.serving.guard import host_name  # noqa: E402
from featherweight.serving.limits import Limits, check_binding  # noqa: E402

CHAT = "/v1/chat/completions"
SITE = "https://notes.example"


def chat() -> bytes:
    messages = [{"role": "user", "content": "Hello"}]
    return json.dumps({"model": "light", "messages": messages, "max_tokens": 2}).encode()


def test_who_may_come_in(start: Callable[..., LiveServer]) -> None:
    server = start(api_key="feather-123")
    for header in ({}, {"Authorization": "feather-123"}, {"Authorization": "Basic feather-123"},
                   {"Authorization": "Bearer"}, {"Authorization": "Bearer \xfc"}):  # fmt: skip
        for path in ("/v1/models", "/metrics"):
            status, answer, headers = send(server, path, headers=header)
            assert (status, answer["error"]["code"], headers["www-authenticate"]) == (
                401,
                "invalid_api_key",
                "Bearer",
            )
    assert send(server, CHAT, chat())[0] == 401
    authorized_headers = JSON | {"Authorization": "Bearer feather-123", "Host": "models.example"}
    assert send(server, CHAT, chat(), headers=authorized_headers)[0] == 200
    assert send(server, "/metrics", headers=authorized_headers)[0] == 200
    assert send(server, "/health")[0] == send(server, "/")[0] == 200


def test_other_sites_are_kept_out(server: LiveServer) -> None:
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1"):
        assert send(server, CHAT, chat(), headers=JSON | {"Host": host})[0] == (
            200 if host == "[::1" else 403
        )
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000"):
        assert send(server, CHAT, chat(), headers=JSON | {"Host": host})[0] == 200
    status, _, headers = send(
        server, CHAT, chat(), headers=JSON | {"Origin": "https://evil.example"}
    )
    assert not any(name.startswith("access-control") for name in headers)
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    status, _, headers = send(server, CHAT, headers=preflight, method="OPTIONS")
    assert status == 204
    assert not any(name.startswith("access-control") for name in headers)


def test_only_loopback_needs_no_key() -> None:
    check_binding("127.0.0.1", None)
    check_binding("0.0.0.0", "key")
    for host in ("0.0.0.0", "::", "192.168.0.5", "example.org", ""):
        with pytest.raises(UsageError, match="--api-key"):
            check_binding(host, None)
    for key in ("", "two words", "ü", "a\n"):
        with pytest.raises(UsageError, match="printable"):
            check_binding("127.0.0.1", key)
    assert host_name("[::1]:80") == "::1"
    with pytest.raises(UsageError, match="body_bytes"):
        Limits(body_bytes=0)
    with pytest.raises(UsageError, match="max_tokens"):
        Limits(max_tokens=0)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (CHAT, "POST, OPTIONS"),
        ("/v1/completions", "POST, OPTIONS"),
        ("/v1/responses", "POST, OPTIONS"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/models/light", "GET, HEAD, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
    ],
)
def test_every_path_says_its_methods(server: LiveServer, path: str, methods: str) -> None:
    status, body, headers = send(server, path, method="OPTIONS")
    assert (status, body, headers["allow"]) == (204, "", methods)
    status, answer, headers = send(server, path, method="DELETE")
    assert status == 405
    assert set(headers["allow"].split(", ")) == set(methods.split(", "))
    assert "does not take DELETE" in answer["error"]["message"]
    if "HEAD" in methods:
        status, body, head_headers = send(server, path, method="HEAD")
        assert (status, body) == (200, "")
        assert head_headers["content-type"] == send(server, path)[2]["content-type"]


def test_methods_need_no_key(start: Callable[..., LiveServer]) -> None:
    server = start(api_key="feather-123")
    assert send(server, CHAT, method="OPTIONS")[0] == 204
    assert send(server, "/v1/models", method="HEAD")[0] == 401


def test_other_sites_come_in_by_name_only(start: Callable[..., LiveServer]) -> None:
    server = start(cors_origins=(SITE, "http://localhost:3000"), api_key="feather-123")
    preflight = {
        "Origin": SITE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os",
    }
    status, _, headers = send(server, CHAT, headers=preflight, method="OPTIONS")
    assert (status, headers["access-control-allow-origin"]) == (200, SITE)
    assert "POST" in headers["access-control-allow-methods"]
    assert "x-stainless-os" in headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in headers
    key = JSON | {"Authorization": "Bearer feather-123"}
    status, _, headers = send(server, CHAT, chat(), headers=key | {"Origin": SITE})
    assert (status, headers["access-control-allow-origin"]) == (200, SITE)
    # A page reads also why it was refused.
    status, _, headers = send(server, CHAT, chat(), headers=JSON | {"Origin": SITE})
    assert (status, headers["access-control-allow-origin"]) == (401, SITE)
    for origin in ("https://evil.example", "https://notes.example.evil.example", "null"):
        status, _, headers = send(server, CHAT, chat(), headers=key | {"Origin": origin})
        assert "access-control-allow-origin" not in headers
        status, _, headers = send(
            server, CHAT, headers=preflight | {"Origin": origin}, method="OPTIONS"
        )
        assert status == 400
        assert "access-control-allow-origin" not in headers


def test_what_is_no_origin() -> None:
    check_origins(["https://example.org", "http://localhost:3000"])
    for origin in ("*", "example.org", "https://example.org/", "https://*.example.org", "null"):
        with pytest.raises(UsageError, match="is no origin"):
            check_origins([origin])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/embeddings", "makes no embeddings"),
        ("/v1/images/generations", "makes no images"),
        ("/v1/audio/speech", "makes no audio"),
        ("/v1/moderations", "judges no texts"),
        ("/v1/files", "stores nothing"),
        ("/v1/responses/resp_1", "stores no responses"),
        ("/v1/chat/completions/chatcmpl-1", "stores no completions"),
    ],
)
def test_parts_of_the_protocol_that_are_refused_by_name(
    server: LiveServer, path: str, words: str
) -> None:
    status, answer, _ = send(server, path, b"{}")
    assert (status, answer["error"]["code"]) == (404, "unsupported_endpoint")
    assert words in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"
