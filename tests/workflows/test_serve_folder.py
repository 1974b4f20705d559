"""`fw serve` as people start it: a process on a model folder that answers, and ends in order."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.ledger import bpw_file
from featherweight.interchange import save
from featherweight.quantization.formats import Int, Trellis
from featherweight.quantization.pipeline import quantize
from featherweight.quantization.plans import Plan
from featherweight.quantization.rounding import Nearest
from featherweight.workflows.file_facts import file_facts
from featherweight.workflows.serve_folder import distinct_names, serve_folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model in floating point and packed."""
    work = tmp_path_factory.mktemp("models")
    model, tokenizer = tiny.llama()
    model.save_pretrained(work / "plain")
    tokenizer.save_pretrained(work / "plain")
    quantize(model, Nearest(), Plan({"lm_head": Int(bits=8), "*": Trellis(bits=2)}))
    save(model, work / "light", tokenizer)
    return work / "plain", work / "light"


def test_file_facts(folders: tuple[Path, Path], tmp_path: Path) -> None:
    light = folders[1]
    weights = sum(parameter.numel() for parameter in tiny.llama()[0].parameters())
    for folder in folders:
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        assert file_facts(folder) == {"file_bytes": size, "bits": bpw_file(size, weights)}
    for name, content in (
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("model.safetensors", b"\0" * 20),
    ):
        copy = tmp_path / str(len(list(tmp_path.iterdir())))
        copy.mkdir()
        for file in light.iterdir():
            (copy / file.name).write_bytes(content if file.name == name else file.read_bytes())
        with pytest.raises(BadInput, match="cannot be read"):
            file_facts(copy)


def test_file_facts_imports_no_torch(folders: tuple[Path, Path]) -> None:
    code = f"""
import sys
from pathlib import Path
from featherweight.workflows.file_facts import file_facts
file_facts(Path({str(folders[1])!r}))
print("torch" in sys.modules)
"""
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


def test_names() -> None:
    assert distinct_names(["owner/model"]) == ["owner/model"]
    assert distinct_names(["a.gguf", "b"]) == ["a", "b"]
    assert distinct_names(["same", "same"]) == ["same", "same-original"]


def test_what_cannot_work_is_said_before_a_model_is_opened() -> None:
    with pytest.raises(UsageError, match="--api-key"):
        serve_folder("no-such-model", host="0.0.0.0")
    with pytest.raises(UsageError, match="answer_seconds"):
        serve_folder("no-such-model", seconds=0)
    with pytest.raises(BadInput, match="was not found"):
        serve_folder("no-such-model")


def test_a_process_serves_until_it_is_told_to_stop(folders: tuple[Path, Path]) -> None:
    command = [
        sys.executable,
        "-m",
        "featherweight",
        "serve",
        str(folders[1]),
        "--compare",
        str(folders[0]),
    ]
    process = subprocess.Popen(
        [*command, "--port", "0", "--slots", "2", "--context", "64"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0].startswith("light: ")
        assert lines[1].startswith("plain: ")
        url = lines[2].split()[0]
        models = fetch(f"{url}/v1/models")["data"]
        assert [model["featherweight"]["role"] for model in models] == ["light", "original"]
        assert "published_bytes" not in models[0]["featherweight"]
        original = models[1]["featherweight"]
        assert original["published_dtype"] == "float32"
        assert original["published_bytes"] == original["file_bytes"]
        parameters = {
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 5,
            "seed": 1,
        }
        for name in ("light", "plain"):
            answer = fetch(f"{url}/v1/chat/completions", {"model": name, **parameters})
            assert answer["usage"]["completion_tokens"] >= 1
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stdout is not None
        process.stdout.close()


def fetch(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def test_batched_answers_equal_single_ones(folders: tuple[Path, Path]) -> None:
    """The batcher on a real engine: an answer does not depend on the other requests."""
    from featherweight.base.sampling import Sampling
    from featherweight.inference.batching.batcher import Batcher
    from featherweight.inference.generation import generate
    from featherweight.workflows.engines import open_engine

    torch.manual_seed(0)
    engine, tokenizer = open_engine(folders[1], "reference")
    sampling = Sampling(max_tokens=12, temperature=0.8, seed=3)
    prompts = [
        tokenizer.encode(start)
        for start in ("The quick", "A feather weighs so little", "In 1905 there")
    ]
    answers = [
        "".join(delta.text for delta in generate(engine, tokenizer, prompt, sampling))
        for prompt in prompts
    ]
    with Batcher(engine, tokenizer, num_slots=3, capacity=64) as batcher:
        requests = [batcher.submit(prompt, sampling) for prompt in prompts]
        assert ["".join(delta.text for delta in request) for request in requests] == answers
    engine.close()


def test_a_file_truncated_after_it_was_loaded(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Weights stay in mapped files: when one is truncated under a running server, requests end with
    an error and the process goes on.
    """
    from featherweight.base.sampling import Sampling
    from featherweight.inference.batching.batcher import Batcher
    from featherweight.workflows.engines import open_engine

    folder = shutil.copytree(folders[1], tmp_path / "light")
    try:
        engine, tokenizer = open_engine(folder, "native")
    except UsageError as error:
        pytest.skip(f"no native engine: {error}")
    sampling = Sampling(max_tokens=4, temperature=0)
    with Batcher(engine, tokenizer, num_slots=2, capacity=64) as batcher:
        assert list(batcher.submit([5, 6], sampling))[-1].finish
        weights = folder / "model.safetensors"
        os.truncate(weights, weights.stat().st_size // 2)
        for _ in range(2):
            with pytest.raises(BadInput, match="changed"):
                list(batcher.submit([5, 6], sampling))
        assert batcher.is_alive
    engine.close()
