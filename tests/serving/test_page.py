"""The chat page, driven in headless Chromium: it streams, stops and compares answers, and shows
what models write as text.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

for extra in ("fastapi", "uvicorn", "prometheus_client", "websockets"):
    pytest.importorskip(extra, reason="the extras `serve` and `test` are not installed")

from chromium import Page, browser, find  # noqa: E402
from live_server import LiveServer, wait_until  # noqa: E402

from featherweight.inference.text.tokenizer import ChatTokenizer  # noqa: E402
from featherweight.serving.app import FILES, PAGE  # noqa: E402

needs_chromium = pytest.mark.skipif(find() is None, reason="there is no Chromium")
IS_DONE = "!state.stopper && document.querySelectorAll('.busy').length === 0"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium: Page) -> Page:
    chromium.requests.clear()
    chromium.complaints.clear()
    return chromium


def say(page: Page, question: str) -> None:
    """Type a question and press the button, as people do."""
    page.run("byId('question').focus()")
    page.call("Input.insertText", text=question)
    page.run("byId('send').click()")


def answers(page: Page) -> list[str]:
    return list(
        page.run("[...document.querySelectorAll('.words')].map(words => words.textContent)")
    )


@needs_chromium
def test_speed_of_an_answer_that_comes_at_once(page: Page, server: LiveServer) -> None:
    page.open(server.url)
    page.run(
        "window.box = document.createElement('p'); rate(box, 7, 1000110, 1000112, 1000000, '')"
    )
    assert page.run("box.textContent") == "7 tokens · 62.5 tokens/s · first after 0.11 s"
    page.run("rate(box, 101, 1000100, 1000600, 1000000, 'stopped')")
    assert (
        page.run("box.textContent") == "101 tokens · 200.0 tokens/s · first after 0.10 s · stopped"
    )


@needs_chromium
def test_a_conversation(page: Page, server: LiveServer, tokenizer: ChatTokenizer) -> None:
    page.open(server.url)
    page.wait("state.models.length")
    assert "light: 2.50 bits a weight, 41.0 MB" in page.run("byId('facts').textContent")
    assert page.run("byId('compare').hidden")
    page.run(
        "byId('max_tokens').value = 20; byId('temperature').value = 0;"
        "byId('system').value = 'Be kind.'"
    )
    say(page, "Hello")
    page.wait(f"{IS_DONE} && document.querySelector('.rate').textContent.startsWith('20 tokens')")
    assert "tokens/s" in page.run("document.querySelector('.rate').textContent")
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    assert answers(page) == [answer_without_stream(server, turns)]
    say(page, "And then?")
    page.wait(f"document.querySelectorAll('.words').length === 2 && {IS_DONE}")
    turns += [
        {"role": "assistant", "content": answers(page)[0]},
        {"role": "user", "content": "And then?"},
    ]
    assert answers(page)[1] == answer_without_stream(server, turns)
    page.run("byId('fresh').click()")
    assert answers(page) == []
    assert all(request.startswith(server.url) for request in page.requests)
    assert page.complaints == []


def answer_without_stream(server: LiveServer, turns: list[dict[str, str]]) -> str:
    """What the page must show: the answer to these turns without a stream."""
    body = {"model": "light", "messages": turns, "max_tokens": 20, "temperature": 0}
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


@needs_chromium
def test_stop(page: Page, server: LiveServer) -> None:
    server.engine.delay = 0.005
    page.open(server.url)
    page.wait("state.models.length")
    page.run("byId('max_tokens').value = 400")
    say(page, "Hello")
    page.wait("document.querySelector('.words').textContent.length > 5")
    assert page.run("byId('send').hidden && !byId('stop').hidden")
    page.run("byId('stop').click()")
    page.wait(IS_DONE)
    assert page.run("document.querySelector('.rate').textContent").endswith("stopped")
    wait_until(server.is_idle)


@needs_chromium
def test_compare_side_by_side(page: Page, start: Callable[..., LiveServer]) -> None:
    server = start(models=("light", "original"))
    page.look(1100, 700)
    page.open(server.url)
    page.wait("state.models.length")
    page.run("byId('compare').click()")
    page.run("byId('max_tokens').value = 10")
    say(page, "Hello")
    page.wait(f"document.querySelectorAll('.answer').length === 2 && {IS_DONE}")
    assert page.run(
        "[...document.querySelectorAll('.answer h3')].map(name => name.textContent)"
    ) == [
        "light",
        "original",
    ]
    tops = (
        "[...document.querySelectorAll('.answer')]"
        ".map(answer => answer.getBoundingClientRect().top)"
    )
    assert len(set(page.run(tops))) == 1
    page.look(390, 800)
    assert len(set(page.run(tops))) == 2
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert all(any(kind == "step" for kind, _ in engine.calls) for engine in server.engines)


@needs_chromium
def test_what_models_write_is_text(
    page: Page, server: LiveServer, tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>&lt;b&gt;'
    script, prompt = (
        tokenizer.encode(evil),
        len(tokenizer.chat([{"role": "user", "content": evil}])),
    )

    def logits(tokens: list[int]) -> np.ndarray:
        row = np.zeros(300, np.float32)
        row[script[min(len(tokens) - prompt, len(script) - 1)]] = 9
        return row

    monkeypatch.setattr(server.engine, "logits", logits)
    page.open(server.url)
    page.wait("state.models.length")
    page.run(f"byId('max_tokens').value = {len(script)}; byId('temperature').value = 0")
    say(page, evil)
    page.wait(f"{IS_DONE} && document.querySelectorAll('.words').length")
    assert answers(page) == [evil]
    assert page.run("document.querySelector('.mine').textContent") == evil
    assert page.run("document.querySelectorAll('#talk img, #talk script').length") == 0
    assert page.run("window.hacked") is None


@needs_chromium
def test_errors_and_keys_are_told(page: Page, start: Callable[..., LiveServer]) -> None:
    server = start(api_key="feather-123")
    page.open(server.url)
    page.wait("byId('facts').textContent.includes('API key')")
    page.run("byId('key').value = 'feather-123'; byId('key').dispatchEvent(new Event('change'))")
    page.wait("state.models.length")
    server.engine.is_broken = True
    say(page, "Hello")
    page.wait(f"{IS_DONE} && document.querySelector('.problem')")
    assert "the model failed at this answer" in page.run(
        "document.querySelector('.problem').textContent"
    )


def test_the_page_needs_nothing_from_elsewhere(server: LiveServer) -> None:
    for path, (file, kind) in FILES.items():
        with urllib.request.urlopen(server.url + path) as response:
            assert response.headers["Content-Type"] == kind
            policy = response.headers["Content-Security-Policy"]
            assert response.read() == (PAGE / file).read_bytes()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    page_text = "".join(
        path.read_text(encoding="utf-8") for path in Path(PAGE).iterdir() if path.suffix != ".svg"
    )
    assert "http://" not in page_text
    assert "https://" not in page_text
    for forbidden_code in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "onclick=",
        "style=",
    ):
        assert forbidden_code not in page_text
