"""Sessions of the PyTorch engine: several advance in one pass, a fork goes on by itself, and the
fingerprint follows the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import other_families
import pytest
import tiny
import torch

from featherweight.inference.prefix_cache import PrefixCache
from featherweight.inference.reference import ReferenceEngine

IDS = np.random.default_rng(0).integers(3, 300, 90).tolist()  # more than Gemma's window of 64
LENGTHS = (3, 70, 20, 70)


def assert_close(logits: Any, reference: Any) -> None:
    np.testing.assert_allclose(logits, reference, atol=2e-4 * np.abs(reference).max())


def texts() -> list[list[int]]:
    return [IDS[i : i + length] for i, length in enumerate(LENGTHS)]


def check_steps(engine: ReferenceEngine) -> None:
    """Three steps of sessions of several lengths equal whole passes."""
    sessions, together = [engine.session() for _ in LENGTHS], texts()
    for session, text in zip(sessions, together, strict=True):
        engine.forward(session, text)
    for tokens in ([7, 8, 9, 10], [11, 12, 13, 14], [15, 16, 17, 18]):
        rows = engine.step(sessions, tokens)
        for text, token, row in zip(together, tokens, rows, strict=True):
            text.append(token)
            assert_close(row, engine.forward(engine.session(), text)[0])
    assert [session.length for session in sessions] == [length + 3 for length in LENGTHS]
    sessions[1].rewind(30)
    rows = engine.step(sessions[:2], [1, 2])
    assert_close(rows[1], engine.forward(engine.session(), [*together[1][:30], 2])[0])


@pytest.mark.parametrize("make", tiny.ALL)
def test_a_step_is_each_session_alone(make: Callable[..., Any]) -> None:
    check_steps(ReferenceEngine(make()[0], "f", "tiny"))


@pytest.mark.parametrize("name", ["stablelm", "gpt_neox", "falcon", "opt", "gpt_bigcode", "mamba"])
def test_other_families_step_too(name: str) -> None:
    check_steps(ReferenceEngine(other_families.model(name), "f", name))


def test_a_step_is_one_forward_pass() -> None:
    model, _ = tiny.llama()
    engine, shapes = ReferenceEngine(model, "f", "tiny"), []
    sessions = [engine.session() for _ in range(9)]
    for i, session in enumerate(sessions):
        engine.forward(session, IDS[: i + 1])
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    engine.step(sessions, IDS[:9])
    handle.remove()
    assert shapes == [(9, 1)]


def test_an_interrupted_step_changes_nothing() -> None:
    model, _ = tiny.llama()
    engine = ReferenceEngine(model, "f", "tiny")
    sessions = [engine.session() for _ in range(2)]
    for session, text in zip(sessions, texts(), strict=False):
        engine.forward(session, text)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model.model.layers[1].mlp.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.step(sessions, [1, 2])
    handle.remove()
    assert [session.length for session in sessions] == [3, 70]
    rows = engine.step(sessions, [5, 6])
    for text, token, row in zip(texts(), [5, 6], rows, strict=False):
        assert_close(row, engine.forward(engine.session(), [*text, token])[0])


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_fork_goes_on_by_itself(name: str) -> None:
    model = tiny.llama()[0] if name == "llama" else other_families.model(name)
    engine = ReferenceEngine(model, "f", name)
    session = engine.session(60)
    assert session.fork().length == 0
    engine.forward(session, IDS[:20])
    fork = session.fork()
    assert fork.length == 20 and fork.capacity == 60
    engine.forward(fork, IDS[30:40])
    rows = engine.step([session, fork], [5, 6])
    assert_close(rows[0], engine.forward(engine.session(), [*IDS[:20], 5])[0])
    assert_close(rows[1], engine.forward(engine.session(), [*IDS[:20], *IDS[30:40], 6])[0])
    session.rewind(4)
    session.close()
    fork.rewind(10)
    assert_close(engine.forward(fork, [9])[0], engine.forward(engine.session(), [*IDS[:10], 9])[0])


def test_the_fingerprint_follows_the_weights() -> None:
    model, _ = tiny.llama()
    model = model.float()
    engine = ReferenceEngine(model, "f", "tiny")
    assert engine.fingerprint == "f-reference"
    engine.forward(engine.session(), IDS[:5])
    assert engine.fingerprint == "f-reference"
    weight = model.model.layers[0].mlp.up_proj.weight
    optimizer = torch.optim.AdamW([weight], 1e-3)
    weight.grad = torch.ones_like(weight)
    original = weight.detach().clone()
    optimizer.step()
    trained = engine.fingerprint
    assert trained != "f-reference" and trained == engine.fingerprint
    with torch.no_grad():
        weight[0, 0] += 1
    assert engine.fingerprint not in (trained, "f-reference")
    with torch.no_grad():
        weight[0, 0] -= 1
        torch.testing.assert_close(weight, original, rtol=0, atol=2e-3)
    # Another engine over equal weights that were changed in another way has the same digest.
    other, twin = ReferenceEngine(model, "f", "tiny"), engine.fingerprint
    assert other.fingerprint == "f-reference"
    with torch.no_grad():
        weight.copy_(weight.clone())
    assert other.fingerprint == engine.fingerprint == twin
    engine.close()
    assert engine.fingerprint == "f-reference"


def test_a_prefix_of_earlier_weights_is_not_restored(tmp_path: Path) -> None:
    model, _ = tiny.llama()
    engine, cache = ReferenceEngine(model, "f", "tiny"), PrefixCache(tmp_path, min_tokens=4)
    session = engine.session()
    engine.forward(session, IDS[:20])
    cache.save(engine, session, IDS[:20])
    assert cache.restore(engine, engine.session(), IDS[:30]) == 20
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)
    assert cache.restore(engine, engine.session(), IDS[:30]) == 0
