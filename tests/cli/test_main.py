"""The shell around the workflows: options reach them, results are printed, and errors become one
line and an exit code.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from featherweight.base.errors import BadInput, ExportFailed, PreflightRefused, UsageError
from featherweight.base.events import Event
from featherweight.cli import main
from featherweight.interchange.exports.base import ExportResult

RESULTS = {
    "model": {"name": "toy", "source_file_bytes": 269_100_000, "source_bits": 16},
    "size": {"file_bytes": 80_000_000, "bpw_codes": 3.0, "bpw_layers": 3.03, "bpw_file": 4.75},
    "quality": {
        "text": {"name": "wikitext2_test"},
        "original": {"perplexity": {"mean": 18.27, "low": 17.9, "high": 18.65}},
        "light": {"perplexity": {"mean": 19.8, "low": 19.4, "high": 20.2}},
        "kl": {"mean": 0.0984, "low": 0.0951, "high": 0.102},
        "kl_self": 0.0,
        "top1": {"mean": 0.853, "low": 0.85, "high": 0.856},
    },
    "samples": [{"question": "Why?", "original": " Because.", "light": "Since. "}],
}


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in argv])
    return int(stop.value.code or 0)


Plant = Callable[..., None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Replace a workflow by a function."""

    def plant(name: str, function: Callable[..., Any]) -> None:
        module = types.ModuleType(name)
        setattr(module, name, function)
        monkeypatch.setitem(sys.modules, f"featherweight.workflows.{name}", module)

    return plant


@pytest.fixture
def arguments(plant: Plant, tmp_path: Path) -> dict[str, Any]:
    """The arguments of the last call of `quantize_folder`, which writes RESULTS into the folder."""
    call: dict[str, Any] = {}

    def quantize_folder(model: str, out: Path, settings: dict[str, Any], **options: Any) -> Path:
        call.update(model=model, out=out, settings=settings, **options)
        options["listener"](Event("layers", 1, 2, 2.0, 2.0, "layer.0"))
        out.mkdir()
        (out / "results.json").write_text(json.dumps(RESULTS))
        return out

    plant("quantize_folder", quantize_folder)
    return call


def test_quantize_passes_what_was_given(
    arguments: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "light"
    options = ("--bits", 3, "--head-bits", 4, "--preset", "fast", "--ask", "Why?", "--fresh")
    assert run("quantize", "toy", *options, "--out", out) == 0
    assert arguments["model"] == "toy"
    assert arguments["out"] == out
    assert arguments["settings"] == {"model": "toy", "bits": 3, "head_bits": 4, "preset": "fast"}
    assert arguments["fresh"] is True
    assert arguments["overwrite"] is False
    assert arguments["evaluate"] is True
    assert arguments["ask"] == "Why?"
    assert arguments["max_ram_gb"] is None
    output = capsys.readouterr()
    for figure in (
        "269.1 MB",
        "80.0 MB",
        "4.750",
        "0.0984 [0.0951, 0.1020]",
        "18.27 [17.90, 18.65]",
        "85.3 %",
    ):
        assert figure in output.out
    assert f"report: {out / 'report.html'}" in output.out
    assert output.out.rstrip().endswith("original  Because.\nlight     Since.")
    assert {
        "event": "progress",
        "stage": "layers",
        "done": 1,
        "total": 2,
        "message": "layer.0",
    }.items() <= json.loads(output.err).items()


def test_yaml_equals_flags(arguments: dict[str, Any], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: toy\nbits: 3\npreset: fast\nask: Why?\nevaluate: false\nmade_with: {versions: {}}\n"
    )
    assert run("quantize", "--config", recipe, "--out", tmp_path / "a") == 0
    by_file = {key: value for key, value in arguments.items() if key not in ("out", "listener")}
    command = ("quantize", "toy", "--bits", 3, "--preset", "fast", "--ask", "Why?", "--no-evaluate")
    assert run(*command, "--out", tmp_path / "b") == 0
    assert {
        key: value for key, value in arguments.items() if key not in ("out", "listener")
    } == by_file


def test_json_is_results_json(arguments: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    assert run("quantize", "toy", "--out", tmp_path / "a", "--json") == 0
    assert json.loads(capsys.readouterr().out) == RESULTS


def test_a_missed_bound_ends_with_4(arguments: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    assert (
        run(
            "quantize",
            "toy",
            "--out",
            tmp_path / "a",
            "--fail-if",
            "kl>0.05",
            "--fail-if",
            "top1<0.5",
        )
        == 4
    )
    assert "error: kl is 0.0984, and kl>0.05 was to fail" in capsys.readouterr().err
    assert run("quantize", "toy", "--out", tmp_path / "b", "--fail-if", "kl>0.1") == 0


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("bits must be\n 1 to 4"), 2, "error: bits must be 1 to 4"),
        (BadInput("model.safetensors is truncated"), 2, "error: model.safetensors is truncated"),
        (PreflightRefused("needs 9 GB"), 3, "error: needs 9 GB"),
        (MemoryError(), 3, "error: not enough memory"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), 2, "error: a/b: no such file"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: no space left on the disk"),
        (
            KeyError("x"),
            1,
            "error: KeyError: 'x' (unexpected; FEATHERWEIGHT_TRACEBACK=1 shows where",
        ),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
    ],
)
def test_errors_are_one_line_and_a_code(
    plant: Plant, tmp_path: Path, capsys: Any, error: BaseException, code: int, line: str
) -> None:
    def fail(*args: Any, **options: Any) -> Path:
        raise error

    plant("quantize_folder", fail)
    assert run("quantize", "toy", "--out", tmp_path / "a") == code
    output = capsys.readouterr().err
    assert output.startswith(line)
    assert output.count("\n") <= 1
    assert "Traceback" not in output


def test_a_traceback_is_shown_when_asked_for(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> Path:
        raise UsageError("no")

    plant("quantize_folder", fail)
    monkeypatch.setenv("FEATHERWEIGHT_TRACEBACK", "1")
    with pytest.raises(UsageError, match="no"):
        main(["quantize", "toy", "--out", str(tmp_path / "a")])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["quantize", "toy"], "--out"),
        (["quantize", "--out", "a"], "name a model"),
        (["quantize", "toy", "--out", "a", "--bits", "two"], "--bits"),
        (["quantize", "toy", "--out", "a", "--fail-if", "speed>1"], "unknown figure"),
        (["quantize", "toy", "--out", "a", "--fail-if", "kl=1"], "should look like"),
        (["quantize", "toy", "--out", "a", "--set", "seed"], "should look like"),
        (["quantize", "toy", "--out", "a", "--config", "missing.yaml"], "cannot read missing.yaml"),
        (["quantise", "toy"], "quantise"),
        (["evaluate"], "MODEL"),
        (["export", "light", "--out", "a"], "--to"),
        (["export", "missing", "--to", "gguf", "--out", "a.gguf"], "missing is not a folder that"),
        ([], ""),
    ],
)
def test_wrong_usage_ends_with_2(argv: list[str], words: str, capsys: Any) -> None:
    assert run(*argv) == 2
    assert words in capsys.readouterr().err


def test_export(plant: Plant, tmp_path: Path, capsys: Any) -> None:
    result = ExportResult(
        tmp_path / "m.gguf", 175_000_000, {"Q4_0": 210, "F32": 62}, 272, ["210 matrices in Q4_0"]
    )

    def export_folder(packed: Path, to: str, out: Path, **options: Any) -> ExportResult:
        assert (packed, to, out) == (Path("light"), "gguf", result.path)
        assert (options["overwrite"], options["odd_bits"]) == (True, False)
        return result

    plant("export_folder", export_folder)
    command = ("export", "light", "--to", "gguf", "--out", result.path, "--overwrite")
    assert run(*command) == 0
    output = capsys.readouterr().out
    assert "175.0 MB, 272 tensors (210 in Q4_0, 62 in F32)" in output
    assert "  210 matrices in Q4_0\n  read again and compared" in output
    assert run(*command, "--json") == 0
    assert json.loads(capsys.readouterr().out)["types"] == result.types


def test_an_export_that_differs_ends_with_5(plant: Plant, tmp_path: Path, capsys: Any) -> None:
    def export_folder(*args: Any, **options: Any) -> ExportResult:
        raise ExportFailed("out: 1 of 3 numbers of x, read again, are not the model's")

    plant("export_folder", export_folder)
    assert run("export", "light", "--to", "hf", "--out", tmp_path / "out") == 5
    assert capsys.readouterr().err.startswith("error: out: 1 of 3 numbers")


def test_evaluate(plant: Plant, capsys: Any) -> None:
    choices: list[str] = []

    def evaluate_folder(model: str, **options: Any) -> dict[str, Any]:
        assert (model, options["against"], options["windows"], options["length"]) == (
            "light",
            "toy",
            2,
            64,
        )
        choices.append(options["bos"])
        return {"quality": RESULTS["quality"]}

    plant("evaluate_folder", evaluate_folder)
    command = ("evaluate", "light", "--against", "toy", "--windows", 2, "--length", 64)
    assert run(*command) == 0 and run(*command, "--bos", "no") == 0
    assert choices == ["auto", "no"]
    assert "0.0984 [0.0951, 0.1020]" in capsys.readouterr().out
    assert run(*command, "--fail-if", "bpw_file>5") == 4
    assert "bpw_file was not measured" in capsys.readouterr().err


def test_report(plant: Plant, tmp_path: Path, capsys: Any) -> None:
    plant("report_folder", lambda out: [out / "report.html", out / "README.md"])
    assert run("report", tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "report.html"),
        str(tmp_path / "README.md"),
    ]


def test_chat_answers_lines_from_a_pipe(
    plant: Plant, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chat_folder(model: str, sampling: Any, **options: Any) -> Callable[[str], Iterator[str]]:
        assert (sampling.temperature, sampling.max_tokens) == (0, 512)
        assert (options["runtime"], options["lookup"]) == ("auto", 0)
        return lambda question: iter(["You said ", question, "."])

    plant("chat_folder", chat_folder)
    assert run("chat", "toy", "--once", "hello", "--temperature", 0) == 0
    assert capsys.readouterr().out == "You said hello.\n"
    lines = iter(["one", "", "two", "/quit", "three"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert run("chat", "toy", "--temperature", 0) == 0
    assert capsys.readouterr().out == "You said one.\nYou said two.\n"


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["quantize"],
        ["evaluate"],
        ["report"],
        ["plan"],
        ["chat"],
        ["generate"],
        ["serve"],
        ["doctor"],
    ],
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\nfrom featherweight.cli import main\n"
        f"try:\n    main({[*command, '--help']!r})\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "print(' '.join({name.split('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "Usage" in result.stdout
    modules = set(result.stdout.splitlines()[-1].split())
    assert not modules.intersection(
        {"torch", "transformers", "numpy", "safetensors", "jinja2", "gguf", "yaml"}
    )
