"""`fw serve`: options reach the workflow, the key may come from the environment, and the served
models are printed.
"""

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
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of the last call of the workflow."""
    call: dict[str, Any] = {}

    def serve_folder(model: str, **options: Any) -> None:
        call.update(model=model, **options)
        facts = {"bits": 4.091, "file_bytes": 68_800_000, "description": "native"}
        options["on_ready"]("http://127.0.0.1:8000", [{"id": "light", "featherweight": facts}])

    module = types.ModuleType("serve_folder")
    module.serve_folder = serve_folder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "featherweight.workflows.serve_folder", module)
    return call


def test_options_arrive(
    arguments: dict[str, Any], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEATHERWEIGHT_API_KEY", raising=False)
    assert (
        run("serve", "light", "--compare", "toy", "--port", 0, "--slots", 3, "--context", 512) == 0
    )
    expected_arguments = {
        "model": "light",
        "compare": "toy",
        "host": "127.0.0.1",
        "port": 0,
        "slots": 3,
        "context": 512,
    }
    assert expected_arguments.items() <= arguments.items()
    assert arguments["api_key"] is None
    assert capsys.readouterr().out.splitlines() == [
        "light: 4.09 bits a weight, 68.8 MB; native",
        "http://127.0.0.1:8000  (the page; clients use http://127.0.0.1:8000/v1)",
    ]


def test_the_key_comes_from_the_environment(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATHERWEIGHT_API_KEY", "feather-123")
    assert run("serve", "light") == 0
    assert arguments["api_key"] == "feather-123"
    assert run("serve", "light", "--api-key", "other") == 0
    assert arguments["api_key"] == "other"


@pytest.mark.parametrize(
    "options", [["--port", "70000"], ["--slots", "0"], ["--context", "1"], ["--queue", "-1"], []]
)
def test_wrong_usage_ends_with_2(arguments: dict[str, Any], options: list[str]) -> None:
    assert run("serve", *(["light", *options] if options else [])) == 2
    assert not arguments
