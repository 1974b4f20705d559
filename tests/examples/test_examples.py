"""The examples run, on a toy model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import tiny

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> Any:
    """The module of an example."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_quantize_in_memory(tmp_path: Path) -> None:
    source = tiny.save(*tiny.llama(), tmp_path / "model")
    module = example("quantize_in_memory")
    assert module.main(str(source), str(tmp_path / "out"), count=8) > 0
    assert (tmp_path / "out" / "config.json").exists()


def test_distill_half(tmp_path: Path) -> None:
    source = tiny.save(*tiny.llama(), tmp_path / "model")
    losses = example("distill_half").main(str(source), str(tmp_path / "out"), num_steps=12)
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    assert example("distill_half").main(str(source), str(tmp_path / "out"), num_steps=12) == []


def test_examples_are_short() -> None:
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) < 40, file
