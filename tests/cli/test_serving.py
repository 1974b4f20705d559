"""`fw serve`: options arrive, the key comes from the environment too, and what is served is said."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from featherweight.cli import main


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in argv])
    return int(stop.value.code or 0)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the workflow was called with."""
    seen: dict[str, Any] = {}

    def serve_folder(model: str, **options: Any) -> None:
        seen.update(model=model, **options)
        facts = {"bits": 4.091, "file_bytes": 68_800_000, "description": "native"}
        options["ready"]("http://127.0.0.1:8000", [{"id": "light", "featherweight": facts}])

    module = types.ModuleType("serve_folder")
    module.serve_folder = serve_folder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "featherweight.workflows.serve_folder", module)
    return seen


def test_options_arrive(
    called: dict[str, Any], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEATHERWEIGHT_API_KEY", raising=False)
    assert (
        run("serve", "light", "--compare", "toy", "--port", 0, "--slots", 3, "--context", 512) == 0
    )
    expected = {
        "model": "light",
        "compare": "toy",
        "host": "127.0.0.1",
        "port": 0,
        "slots": 3,
        "context": 512,
    }
    assert expected.items() <= called.items()
    assert called["api_key"] is None
    assert capsys.readouterr().out.splitlines() == [
        "light: 4.09 bits a weight, 68.8 MB; native",
        "http://127.0.0.1:8000  (the page; clients use http://127.0.0.1:8000/v1)",
    ]


def test_the_key_comes_from_the_environment(
    called: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATHERWEIGHT_API_KEY", "feather-123")
    assert run("serve", "light") == 0
    assert called["api_key"] == "feather-123"
    assert run("serve", "light", "--api-key", "other") == 0
    assert called["api_key"] == "other"


@pytest.mark.parametrize(
    "wrong", [["--port", "70000"], ["--slots", "0"], ["--context", "1"], ["--queue", "-1"], []]
)
def test_wrong_usage_ends_with_2(called: dict[str, Any], wrong: list[str]) -> None:
    assert run("serve", *(["light", *wrong] if wrong else [])) == 2
    assert not called
