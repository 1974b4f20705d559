"""`fw bench` on a tiny model: every figure is there, llama.cpp runs in alternating rounds, and what
cannot be measured is refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.events import Event
from featherweight.cli import main
from featherweight.ops import library
from featherweight.workflows.bench_folder import bench_folder

FAKE = """
import json, sys
value = dict(zip(sys.argv[1::2], sys.argv[2::2]))
common = {"build_commit": "abc1234"}
print(json.dumps([
    {**common, "n_prompt": int(value["-p"]), "n_gen": 0, "avg_ts": 8.0},
    {**common, "n_prompt": 0, "n_gen": int(value["-n"]), "avg_ts": 4.0},
]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(), tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture
def rival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GGUF file that a fake llama-bench runs at 8 and 4 tokens a second."""
    program = tmp_path / "llama-bench"
    program.write_text(f"#!{sys.executable}{FAKE}")
    program.chmod(0o755)
    monkeypatch.setenv("FEATHERWEIGHT_LLAMA_BENCH", str(program))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    return file


@pytest.mark.parametrize("runtime", ["native", "reference"])
def test_every_figure_is_there(folder: Path, runtime: str) -> None:
    if runtime == "native" and library.library() is None:
        pytest.skip("needs the native library")
    events: list[Event] = []
    results = bench_folder(
        str(folder),
        threads=1,
        prompt=20,
        tokens=5,
        rounds=2,
        runtime=runtime,
        listener=events.append,
    )
    assert json.loads(json.dumps(results)) == results
    assert len(results["rounds"]) == 2 and results["threads"] == 1 and len(results["load"]) == 2
    assert results["decode"]["low"] <= results["decode"]["mean"] <= results["decode"]["high"]
    assert results["model"]["file_bytes"] == (folder / "model.safetensors").stat().st_size
    assert results["machine"]["cpu"] and "llama" not in results
    if runtime == "native":
        assert results["bandwidth"]["share"] > 0 and results["bandwidth"]["fits_cache"]
    assert [event.done for event in events if event.stage == "rounds"] == [0, 1, 2]


def test_llama_takes_its_turns(folder: Path, rival: Path, capsys: Any) -> None:
    options = ["--prompt", "20", "--tokens", "5", "--rounds", "2", "--against-llama", str(rival)]
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(folder), *options, "--json"])
    assert not stop.value.code
    results = json.loads(capsys.readouterr().out)
    llama = results["llama"]
    assert (llama["prefill"]["mean"], llama["decode"]["mean"], len(llama["rounds"])) == (
        8.0,
        4.0,
        2,
    )
    assert llama["ratio"]["decode"]["mean"] > 0 and llama["file_bytes"] == 104
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(folder), *options])
    assert not stop.value.code
    output = capsys.readouterr().out
    for word in ("decode 5", "prefill 20", "llama.cpp abc1234", "load average", "machine"):
        assert word in output


def test_what_is_refused(
    folder: Path, rival: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="at least one round"):
        bench_folder(str(folder), rounds=0)
    with pytest.raises(UsageError, match="threads"):
        bench_folder(str(folder), threads=0)
    with pytest.raises(UsageError, match="context of 512"):
        bench_folder(str(folder), prompt=600)
    with pytest.raises(BadInput, match="is not there"):
        bench_folder(str(folder), against_llama=tmp_path / "none.gguf")
    (tmp_path / "other.gguf").write_bytes(b"else")
    with pytest.raises(BadInput, match="not a GGUF file"):
        bench_folder(str(folder), against_llama=tmp_path / "other.gguf")
    monkeypatch.setenv("FEATHERWEIGHT_LLAMA_BENCH", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="not a program"):
        bench_folder(str(folder), against_llama=rival)
