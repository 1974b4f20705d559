"""A fork of a native session has its tokens, and both go on bit for bit as they would alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

import featherweight as fw
from featherweight.base.errors import UsageError
from featherweight.inference.native.reader import open_runtime
from featherweight.ops import library

pytestmark = pytest.mark.skipif(library.library() is None, reason="no native library")
IDS = np.random.default_rng(0).integers(3, 300, 60).tolist()


@pytest.mark.parametrize("int8_activations", [True, False])
def test_a_fork_goes_on_by_itself(int8_activations: bool, tmp_path: Path) -> None:
    model, tokenizer = tiny.odd()
    fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=8)}))
    fw.save(model, tmp_path / "model", tokenizer)
    engine = open_runtime(tmp_path / "model", int8_activations=int8_activations, threads=1)
    session = engine.session(50)
    assert session.fork().length == 0
    engine.forward(session, IDS[:21])
    fork = session.fork()
    assert (fork.length, fork.capacity) == (21, 50)
    assert fork.num_bytes == session.num_bytes
    engine.forward(fork, IDS[30:35])
    rows = engine.step([session, fork], [5, 6])
    for row, text in zip(rows, ([*IDS[:21], 5], [*IDS[:21], *IDS[30:35], 6]), strict=True):
        np.testing.assert_array_equal(row, engine.forward(engine.session(), text)[0])
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.fork()
    fork.rewind(10)
    np.testing.assert_array_equal(
        engine.forward(fork, [9]), engine.forward(engine.session(), [*IDS[:10], 9])
    )
    engine.close()
