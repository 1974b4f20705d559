"""Reading a spoiled model folder ends in a model or in a clear error; `benchmarks/fuzz.py` reads
many more.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import tiny
from tests.interchange import hostile_folders

import featherweight as fw
from featherweight.ops import library


@pytest.mark.skipif(library.library() is None, reason="no native library")
@pytest.mark.parametrize("family", [tiny.llama, tiny.gemma3])
def test_spoiled_folders_are_models_or_clear_errors(tmp_path: Path, family: object) -> None:
    model, tokenizer = family()  # type: ignore[operator]
    plan = fw.Plan(
        {
            "*embed*": fw.Int(bits=4, group=4),
            "*q_proj": fw.Int(bits=3, symmetric=False),
            "*": fw.Trellis(),
        }
    )
    fw.quantize(model, fw.Nearest(), plan, None, transform=fw.Hadamard())
    fw.save(model, tmp_path / "sound", tokenizer)
    hostile_folders.run(tmp_path / "sound")
    hostile = hostile_folders.Hostile(tmp_path / "sound")
    target = tmp_path / "spoiled"
    target.mkdir()
    found: Counter[str] = Counter()
    for seed in range(400):
        hostile_folders.write(target, *hostile.spoiled(random.Random(seed)))
        try:
            found[hostile_folders.outcome(target)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed} escaped as {type(error).__name__}") from error
    assert set(found) <= {"model", "BadInput", "Unsupported", "UsageError"}
    assert found["model"] > 16
    assert found["BadInput"] > 150
