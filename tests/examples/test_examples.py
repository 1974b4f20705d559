"""The examples run, on a toy model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
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


@pytest.mark.filterwarnings("default")  # TRL's own
def test_shorter_thoughts_trl(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    source = tiny.save(*tiny.llama(), tmp_path / "model")
    module = example("shorter_thoughts_trl")
    trainer = module.main(str(source), str(tmp_path / "out"), num_steps=2, limit=8)
    assert trainer.reward_funcs[0].state_dict()["num_steps"] == 2


def test_shorter_thoughts_verl() -> None:
    """Without verl, so nothing is registered."""
    assert example("shorter_thoughts_verl").ESTIMATOR.limit == 4096


def test_shorter_thoughts_openrlhf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FW_MODEL", str(tiny.save(*tiny.llama(), tmp_path / "model")))
    module = example("shorter_thoughts_openrlhf")
    end = module.tokenizer.eos_token
    output = module.reward_func([f"6 x 7 = so</think>42{end}"], ["6 x 7 = "], ["42"])
    assert output["rewards"].tolist() == [1]


def test_op_chain_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("verifiers", reason="verifiers is not installed")
    monkeypatch.setenv("FW_MODEL", str(tiny.save(*tiny.llama(), tmp_path / "model")))
    assert example("op_chain_environment").load_environment(count=10) is not None


def test_examples_are_short() -> None:
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) < 40, file
