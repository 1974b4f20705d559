"""The examples run, on a toy model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import tiny

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_quantize_in_memory(tmp_path: Path) -> None:
    source = tiny.save(*tiny.llama(), tmp_path / "model")
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / "quantize_in_memory.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(str(source), str(tmp_path / "out"), count=8) > 0
    assert (tmp_path / "out" / "config.json").exists()


def test_examples_are_short() -> None:
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) < 40, file
