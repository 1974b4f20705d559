"""Python files of a model folder are never run, and nobody is asked whether they may be."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

import featherweight
from featherweight.cli import main

SOURCE = Path(featherweight.__file__).parent
# The two methods of transformers' classes that may import the code of a folder.
FACTORIES = ("from_pretrained", "from_config")
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass C: ...\n"
CLASSES = {
    "AutoConfig": "own.C",
    "AutoModelForCausalLM": "own.C",
    "AutoTokenizer": ["own.C", "own.C"],
}


def calls() -> list[tuple[str, ast.Call]]:
    """Every call of a factory in the source, with its place."""
    return [
        (f"{path.relative_to(SOURCE)}:{node.lineno}", node)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in FACTORIES
    ]


def test_every_call_says_that_code_is_not_trusted() -> None:
    assert len(calls()) >= 3
    for place, call in calls():
        trust = [word.value for word in call.keywords if word.arg == "trust_remote_code"]
        assert len(trust) == 1, place
        assert isinstance(trust[0], ast.Constant) and trust[0].value is False, place


def test_no_method_is_passed_around() -> None:
    """Only `load_pretrained` gives `from_pretrained` another name; it says so where it calls it."""
    called = {id(call.func) for _, call in calls()}
    names = [
        str(path.relative_to(SOURCE))
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in FACTORIES and id(node) not in called
    ]
    assert set(names) <= {"interchange/pretrained.py"} | {p.split(":")[0] for p, _ in calls()}


def own_type(folder: Path) -> None:
    """A model type that only the folder's code knows."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "own", "auto_map": CLASSES})
    )


def known_type(folder: Path) -> None:
    """A type that transformers knows, with code that would replace its model and tokenizer."""
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**settings, "auto_map": CLASSES}))


def own_tokenizer(folder: Path) -> None:
    """A tokenizer class that only the folder's code knows."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "OwnTokenizer", "auto_map": CLASSES}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("prepare", [own_type, known_type, own_tokenizer])
@pytest.mark.parametrize(
    "command",
    [
        ["plan", "FOLDER", "--bits", "4", "--preset", "portable"],
        ["quantize", "FOLDER", "--bits", "4", "--preset", "portable", "--no-evaluate"],
        ["quantize", "FOLDER", "--bits", "2", "--preset", "fast", "--no-evaluate"],
        ["generate", "FOLDER", "The", "--max-tokens", "2"],
        ["evaluate", "FOLDER"],
        ["export", "FOLDER", "--to", "gguf"],
        ["bench", "FOLDER"],
    ],
    ids=lambda command: " ".join(command),
)
def test_commands_neither_ask_nor_run_code(
    prepare: Callable[[Path], None],
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tiny.save(*tiny.llama(), tmp_path / "folder")
    (folder / "own.py").write_text(CODE)
    prepare(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n" * 20))
    words = [str(folder) if word == "FOLDER" else word for word in command]
    if command[0] in ("quantize", "export"):
        words += ["--out", str(tmp_path / "out")]
    with contextlib.suppress(SystemExit):
        main(words)
    assert not list(tmp_path.rglob("ran"))
    assert sys.stdin.tell() == 0
    output = capsys.readouterr()
    assert "[y/N]" not in output.out + output.err
    assert "unexpected" not in output.err
