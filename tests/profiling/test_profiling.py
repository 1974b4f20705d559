"""Speeds are those of the tokens that ran, the bytes of a token are those in the file, and the
output of a rival is checked.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import tiny
from fake_engine import FakeEngine

from featherweight.base.errors import BadInput, UsageError
from featherweight.inference.native.reader import read_model
from featherweight.ops import library
from featherweight.profiling import bytes_per_token, measure_bandwidth, measure_speed
from featherweight.profiling.bandwidth import measure_copy_bandwidth
from featherweight.profiling.llama_cpp import VARIABLE, LlamaBench, LlamaPackage, find_peer

LINES = [
    {"build_commit": "abc1234", "n_prompt": 8, "n_gen": 0, "avg_ts": 400.0},
    {"build_commit": "abc1234", "n_prompt": 0, "n_gen": 4, "avg_ts": 50.0},
]


def program(path: Path, body: str) -> Path:
    """An executable script that takes the place of llama-bench."""
    path.write_text(f"#!{sys.executable}\nimport json, sys\n{body}\n")
    path.chmod(0o755)
    return path


def bench_program(path: Path) -> Path:
    return program(
        path,
        "assert sys.argv[1:3] == ['-m', sys.argv[2]] and '-o' in sys.argv\n"
        f"print({json.dumps(LINES)!r})",
    )


def test_speed_runs_what_was_asked() -> None:
    engine = FakeEngine()
    speed = measure_speed(engine, prompt=7, tokens=3)
    assert speed.prefill > 0 and speed.decode > 0
    assert speed.prefill == pytest.approx(7 / speed.first_token)


@pytest.mark.parametrize(
    ("prompt", "tokens", "message"),
    [(0, 3, "at least one"), (10**6, 3, "context"), (3, 10**6, "context")],
)
def test_speed_refuses(prompt: int, tokens: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure_speed(FakeEngine(), prompt, tokens)


def test_bytes_of_a_token_are_the_files(tmp_path: Path) -> None:
    folder = tiny.save(*tiny.llama(), tmp_path / "llama")
    model = read_model(folder)
    weights = sum(p.numel() for name, p in tiny.llama()[0].named_parameters() if "norm" not in name)
    assert bytes_per_token(model) == 4 * (weights + 64)
    model.close()


@pytest.mark.skipif(library.library() is None, reason="needs the native library")
def test_bandwidth() -> None:
    bandwidth = measure_bandwidth(1, repeats=1)
    assert bandwidth is not None and bandwidth.bytes_per_second > 1e8
    assert bandwidth.footprint > 2 * bandwidth.cache_bytes


def test_copy_bandwidth() -> None:
    assert measure_copy_bandwidth(repeats=1) > 1e8


def test_the_program_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(bench_program(tmp_path / "llama-bench")))
    peer = find_peer()
    assert isinstance(peer, LlamaBench)
    speed = peer.measure(tmp_path / "a.gguf", 8, 4, 2)
    assert (speed.prefill, speed.decode, speed.first_token) == (400.0, 50.0, 0.02)
    assert "abc1234" in peer.description


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('oh no', file=sys.stderr); sys.exit(1)", "cannot run .*oh no"),
        ("print('[]')", "something else"),
        ("print('{')", "something else"),
        ("print(json.dumps([{'n_prompt': 1, 'n_gen': 0, 'avg_ts': 1.0}]))", "something else"),
    ],
)
def test_a_program_that_fails(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        LlamaBench(program(tmp_path / "llama-bench", body)).measure(tmp_path / "a.gguf", 1, 1, 1)


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/llama-bench")
    with pytest.raises(UsageError, match="not a program"):
        find_peer()


def test_no_llama_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("featherweight.profiling.llama_cpp.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="llama-bench on PATH"):
        find_peer()


class FakeLlama:
    """The part of `llama_cpp.Llama` that is used."""

    def __init__(self, path: str, **options: Any) -> None:
        if "broken" in path:
            raise ValueError("failed to load")
        self.tokens: list[int] = []

    def n_vocab(self) -> int:
        return 10

    def reset(self) -> None:
        self.tokens.clear()

    def eval(self, ids: list[int]) -> None:
        self.tokens += ids

    def close(self) -> None:
        pass


def test_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("llama_cpp")
    module.Llama, module.__version__ = FakeLlama, "0.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llama_cpp", module)
    peer = LlamaPackage()
    assert peer.measure(Path("a.gguf"), 5, 2, 1).decode > 0
    peer.close()
    with pytest.raises(BadInput, match="failed to load"):
        peer.measure(Path("broken.gguf"), 5, 2, 1)
