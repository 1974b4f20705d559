"""The PyTorch engine gives the logits of one plain forward, however the tokens came in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from featherweight.base.errors import BadInput, UsageError
from featherweight.inference import ChatTokenizer, Sampling, generate
from featherweight.inference.reference import ONE_PLANE, TWO_PLANES, ReferenceEngine, whole_steps
from featherweight.quantization.formats import Int
from featherweight.quantization.layers import CompressedLinear, TiedHead, compressed
from featherweight.quantization.pipeline import quantize
from featherweight.quantization.plans import Plan
from featherweight.quantization.rounding import Nearest
from featherweight.quantization.transforms import Hadamard

IDS = np.random.default_rng(0).integers(3, 300, 90).tolist()  # more than Gemma's window of 64


def plain(model: Any, ids: Any = IDS) -> Any:
    with torch.no_grad():
        return model(torch.tensor(ids)[None], use_cache=False).logits[0].float().numpy()


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("make", tiny.ALL)
def test_logits_are_those_of_one_forward(make: Callable[..., Any]) -> None:
    model, _ = make()
    engine, wanted = ReferenceEngine(model, "f", "tiny"), plain(model)
    session = engine.session()
    close(engine.forward(session, IDS[:50], "all"), wanted[:50])
    assert engine.forward(session, IDS[50:70], "none").shape == (0, 300)
    close(engine.forward(session, IDS[70:80]), wanted[79:80])
    close(engine.step([session], [IDS[80]]), wanted[80:81])
    assert session.length == 81
    # Back to where it was, along another way, and back again.
    session.rewind(66)
    engine.forward(session, IDS[::-1][:9])
    session.rewind(66)
    close(engine.forward(session, IDS[66:], "all"), wanted[66:])
    kept = session.state()
    other = engine.session(95)
    other.restore(kept, 90)
    np.testing.assert_array_equal(engine.forward(other, [5]), engine.forward(session, [5]))
    session.rewind(0)
    close(engine.forward(session, IDS[:3], "all"), wanted[:3])


def test_a_step_is_each_sequence_alone() -> None:
    engine = ReferenceEngine(tiny.llama()[0], "f", "tiny")
    sessions = [engine.session() for _ in range(3)]
    for count, session in enumerate(sessions, 1):
        engine.forward(session, IDS[:count])
    rows = engine.step(sessions, [7, 8, 9])
    for count, row in enumerate(rows, 1):
        alone = engine.session()
        close(engine.forward(alone, [*IDS[:count], 6 + count])[0], row)


def test_what_an_engine_refuses() -> None:
    engine = ReferenceEngine(tiny.llama()[0], "f", "tiny")
    session = engine.session(5)
    engine.forward(session, [1, 2])
    kept = session.state()
    for tokens, words in (
        ([], "no tokens"),
        ([300], "300"),
        ([-1], "-1"),
        ([1, 2, 3, 4], "at most 5"),
    ):
        with pytest.raises(UsageError, match=words):
            engine.forward(session, tokens)
    with pytest.raises(UsageError, match="each once"):
        engine.step([session, session], [1, 1])
    for length in (3, -1):
        with pytest.raises(UsageError, match="rewind"):
            session.rewind(length)
    for capacity in (0, 513):
        with pytest.raises(UsageError, match="context is 512"):
            engine.session(capacity)
    assert session.length == 2
    for bad in ({}, {**kept, "more": kept["0.keys"]}, {**kept, "0.keys": kept["0.keys"][:, :1]}):
        with pytest.raises(BadInput, match="state"):
            session.restore(bad, 2)
    with pytest.raises(BadInput, match="float16"):
        session.restore({name: array.astype(np.float16) for name, array in kept.items()}, 2)


def test_an_interrupted_forward_changes_nothing() -> None:
    model, _ = tiny.llama()
    engine = ReferenceEngine(model, "f", "tiny")
    session = engine.session()
    engine.forward(session, IDS[:4])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model.model.layers[1].mlp.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.forward(session, IDS[4:8])
    handle.remove()
    close(engine.forward(session, IDS[4:6], "all"), plain(model)[4:6])


@pytest.fixture(scope="module", params=[8, 4])
def packed(request: Any) -> nn.Module:
    """With the table in 8 bits, as it is, and in 4, rotated."""
    model, _ = tiny.llama()
    plan = Plan(
        {
            "model.embed_tokens": Int(bits=request.param),
            "*.o_proj": Int(bits=8, group=16),
            "*": Int(bits=8),
        }
    )
    quantize(model, Nearest(), plan, transform=Hadamard())
    return model


def test_int8_rounds_what_every_compressed_layer_reads(packed: Any) -> None:
    model = packed
    model = packed
    table = model.model.embed_tokens
    assert table.input_rotation == (table.format == Int(bits=4))
    kinds = [type(module) for module in model.modules()]
    assert CompressedLinear in kinds and TiedHead in kinds

    def logits(**options: Any) -> Any:
        engine = ReferenceEngine(model, "f", "tiny", **options)
        session = engine.session()
        try:
            return engine.forward(session, IDS[:20], "all")
        finally:
            kept = [array == array.astype(np.float16) for array in session.state().values()]
            assert np.all(kept) == bool(options), "keys and values are in half precision too"
            engine.close()

    wanted, multiply = logits(), nn.functional.linear
    seen: list[torch.Tensor] = []

    def watch(x: Any, *rest: Any) -> Any:
        seen.append(x)
        return multiply(x, *rest)

    nn.functional.linear = watch  # type: ignore[assignment]
    try:
        found = logits(int8_activations=True)
    finally:
        nn.functional.linear = multiply
    assert len(seen) == len([kind for kind in kinds if kind in (CompressedLinear, TiedHead)])
    coarse = [_is_whole(x, ONE_PLANE) for x in seen]
    assert all(_is_whole(x, TWO_PLANES) for x in seen)
    assert coarse == [True] * (len(seen) - 1) + [table.input_rotation], (
        "only the head's input may be as it is"
    )
    assert 1e-5 < np.abs(found - wanted).max() / np.abs(wanted).max() < 0.1
    np.testing.assert_array_equal(logits(), wanted)
    assert "as_stored" not in vars(table)


def test_closing_forgets_the_decoded_weights(packed: Any) -> None:
    engine = ReferenceEngine(packed, "f", "tiny")
    engine.forward(engine.session(), [1])
    layers = compressed(packed).values()
    assert all(layer._dense_cache for layer in layers)
    engine.close()
    engine.close()
    assert not any(layer._dense_cache for layer in layers)


def _is_whole(x: torch.Tensor, steps: int) -> bool:
    codes = x.double() * (steps / x.abs().amax(-1, keepdim=True).double())
    return bool((codes - codes.round()).abs().max() < steps * 1e-6)


def test_rounding() -> None:
    x = torch.tensor([[127.0, 0.5, 1.5, -2.5, -127.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert whole_steps(x, ONE_PLANE).tolist() == [[127.0, 0.0, 2.0, -2.0, -127.0], [0.0] * 5]
    assert torch.equal(whole_steps(x, TWO_PLANES), x)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_lookup_changes_nothing(temperature: float) -> None:
    model, tokenizer = tiny.llama()
    engine, text = ReferenceEngine(model, "f", "tiny"), ChatTokenizer.of(tokenizer)
    text.end_ids = frozenset()
    sampling, prompt = Sampling(24, temperature, top_k=3, seed=1), (IDS[:12] * 3)
    plain = generate(engine, text, prompt, sampling)
    guessed = generate(engine, text, prompt, sampling, lookup=5)
    assert [piece.tokens for piece in plain] == [piece.tokens for piece in guessed]
    assert guessed.usage.guessed > 0
