"""The doctor reports failures instead of failing itself, and reports nothing private."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import pytest

from featherweight.cli import main
from featherweight.workflows import doctor


def test_a_sound_installation_passes(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--json"])
    text = capsys.readouterr().out
    checks = json.loads(text)
    assert not stop.value.code, [check for check in checks if not check["ok"]]
    assert {"python", "native library", "memory", "disk", "self-test: KL with itself is 0"} <= {
        c["name"] for c in checks
    }
    assert str(Path.home()) not in text
    assert platform.node() not in text


def test_a_crash_is_a_finding() -> None:
    def crash() -> str:
        raise RuntimeError(f"cannot open {Path.home() / 'secret' / 'x'}\nsecond line")

    check = doctor._attempt("test", True, crash)
    assert not check.ok
    assert check.detail == "RuntimeError: cannot open ~/secret/x"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with an old torch and a server that wants another one."""
    versions = {"featherweight": "0.1.0", "torch": "2.9.0+cpu", "vllm": "0.33.0", "numpy": "2.0"}
    requires = {
        "featherweight": ["torch>=2.10", "numpy>=1.26", "pytest; extra == 'test'"],
        "vllm": ["torch==2.14.0", "numpy", "fastapi<0.137", "transformers>=5.16.1,<5.21"],
    }

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", requires.get)


@pytest.mark.usefixtures("environment")
def test_versions_out_of_range_are_found() -> None:
    checks = {check.name: check for check in doctor._versions()}
    assert set(checks) == {"featherweight", "torch", "numpy"}
    assert checks["numpy"].ok
    assert not checks["torch"].ok
    assert checks["torch"].essential
    assert checks["torch"].advice == "pip install 'torch>=2.10'"


@pytest.mark.usefixtures("environment")
def test_neighbours_that_contradict_are_named() -> None:
    check = doctor._conflicts()
    assert not check.ok
    assert check.detail == "vllm wants torch==2.14.0, installed is 2.9.0+cpu"
