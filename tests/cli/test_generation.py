"""`fw generate`, `fw chat` and `fw evaluate --runtime` on a real tiny model, and what they refuse
in one line.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from featherweight.cli import main

GREEDY = ("--runtime", "reference", "--temperature", "0", "--max-tokens", "12")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save(*tiny.llama(), tmp_path_factory.mktemp("model") / "llama"))


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in argv])
    return int(stop.value.code or 0)


def json_output(capsys: Any, *argv: object) -> Any:
    assert run(*argv, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_text_on_stdout_and_speed_on_stderr(model: str, capsys: Any) -> None:
    assert run("generate", model, "Who?", *GREEDY) == 0
    output = capsys.readouterr()
    assert "tokens/s, first token after" in output.err.splitlines()[-1]
    answer = json_output(capsys, "generate", model, "Who?", *GREEDY)
    assert output.out == answer["text"] + "\n"
    assert len(answer["tokens"]) == answer["usage"]["completion_tokens"] <= 12
    assert answer["finish"] in ("stop", "length")
    assert set(answer["seconds"]) == {"first_token", "decode"}


def test_the_prompt_from_a_file_and_from_stdin(
    model: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = json_output(capsys, "generate", model, "Wer? 羽", *GREEDY)
    (tmp_path / "prompt.txt").write_text("Wer? 羽", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("Wer? 羽".encode())))
    for prompt in (f"@{tmp_path / 'prompt.txt'}", "-"):
        assert json_output(capsys, "generate", model, prompt, *GREEDY)["tokens"] == direct["tokens"]
    raw = json_output(capsys, "generate", model, "Wer? 羽", "--raw", *GREEDY)
    assert raw["usage"]["prompt_tokens"] < direct["usage"]["prompt_tokens"]


def test_options_reach_the_sampler(model: str, capsys: Any, tmp_path: Path) -> None:
    options = (
        "--temperature",
        1.5,
        "--top-k",
        30,
        "--top-p",
        0.9,
        "--min-p",
        0.01,
        "--repetition-penalty",
        1.1,
    )
    command = (
        "generate",
        model,
        "fox " * 20,
        "--runtime",
        "reference",
        *options,
        "--max-tokens",
        20,
    )
    first = json_output(capsys, *command, "--seed", 3, "--logprobs", 2, "--cache-dir", tmp_path)
    cached = json_output(capsys, *command, "--seed", 3, "--lookup", 4, "--cache-dir", tmp_path)
    assert first["tokens"] == cached["tokens"]
    assert cached["usage"]["cached_tokens"] > 0 == first["usage"]["cached_tokens"]
    assert len(first["logprobs"]) == len(first["tokens"]) and len(first["logprobs"][0]["top"]) == 2
    stop = first["text"][3:5]
    answer = json_output(capsys, *command, "--seed", 3, "--stop", stop, "--stop", "never said")
    assert (
        answer["text"] == first["text"][: first["text"].index(stop)] and answer["finish"] == "stop"
    )


def test_a_schema(model: str, capsys: Any, tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    (tmp_path / "schema.json").write_text('{"enum": ["fox", "dog"]}')
    answer = json_output(
        capsys,
        "generate",
        model,
        "Which?",
        "--runtime",
        "reference",
        "--json-schema",
        tmp_path / "schema.json",
    )
    assert json.loads(answer["text"]) in ("fox", "dog") and answer["finish"] == "stop"


def test_chat(model: str, capsys: Any) -> None:
    command = (
        "chat",
        model,
        "--once",
        "Who?",
        "--runtime",
        "reference",
        "--temperature",
        0,
        "--max-new-tokens",
        8,
    )
    assert run(*command) == 0
    first = capsys.readouterr().out
    assert run(*command, "--lookup", 3) == 0
    assert capsys.readouterr().out == first


def test_evaluate_with_an_engine(model: str, capsys: Any, tmp_path: Path) -> None:
    """The reference engine computes the plain forward; without compressed layers nothing is
    rounded.
    """
    (tmp_path / "text.txt").write_text(tiny.TEXT * 6)
    command = ("evaluate", model, "--text", tmp_path / "text.txt", "--windows", 2, "--length", 64)
    perplexity = json_output(capsys, *command)["quality"]["light"]["perplexity"]["mean"]
    for runtime in ("reference", "reference-int8"):
        quality = json_output(capsys, *command, "--runtime", runtime, "--against", model)["quality"]
        assert quality["runtime"] == runtime
        assert quality["light"]["perplexity"]["mean"] == pytest.approx(perplexity, rel=1e-4)
        assert abs(quality["kl"]["mean"]) < 1e-6
    assert run("evaluate", model, "--windows", 1, "--length", 1000, "--runtime", "reference") == 2
    assert "longer than the context of llama, 512 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("",), "the prompt is empty"),
        ((" \n",), "the prompt is empty"),
        (("x " * 600,), "more than the 512 that the model can hold; shorten the prompt"),
        (("x" * 200_000,), "200000 characters"),
        (("Who?", "--max-tokens", 10_000), "10000, together more than the 512"),
        (("abc\udcff",), "not valid UTF-8 (at character 3)"),
        (("@nowhere.txt",), "nowhere.txt: no such file"),
        (("Who?", "--temperature", -1), "temperature=-1"),
        (("Who?", "--temperature", "nan"), "temperature=nan"),
        (("Who?", "--top-p", 0), "top_p=0"),
        (("Who?", "--min-p", 2), "min_p=2"),
        (("Who?", "--top-k", -5), "top_k=-5"),
        (("Who?", "--repetition-penalty", 0), "repetition_penalty=0"),
        (("Who?", "--max-tokens", 0), "max_tokens=0"),
        (("Who?", "--logprobs", 21), "logprobs=21"),
        (("Who?", "--lookup", 100), "lookup=100"),
        (("Who?", "--stop", ""), "a stop text has 0 characters"),
        (("Who?", *(["--stop", "x"] * 17)), "stop has 17 texts; at most 16"),
        (("Who?", "--runtime", "turbo"), "turbo"),
        (("Who?", "--json-schema", "nowhere.json"), "nowhere.json: no such file"),
    ],
)
def test_refused_in_one_line(
    arguments: tuple[Any, ...], words: str, model: str, capsys: Any
) -> None:
    runtime = () if "--runtime" in arguments else ("--runtime", "reference")
    assert run("generate", model, *arguments, *runtime) == 2
    output = capsys.readouterr()
    assert words in output.err.splitlines()[-1]
    assert output.out == "" and "Traceback" not in output.err


@pytest.mark.parametrize("source", ["file", "stdin", "schema"])
def test_files_that_are_not_text(
    source: str, model: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bytes").write_bytes(b"abc\xff")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"abc\xff")))
    argv = {
        "file": (f"@{tmp_path / 'bytes'}",),
        "stdin": ("-",),
        "schema": ("Who?", "--json-schema", tmp_path / "bytes"),
    }[source]
    assert run("generate", model, *argv) == 2
    assert "is not UTF-8 text: byte 0xff at 3" in capsys.readouterr().err
