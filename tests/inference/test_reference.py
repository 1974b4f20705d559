"""The PyTorch engine gives the logits of one plain forward, however the tokens are divided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference import ChatTokenizer, generate
from featherweight.inference.activation_rounding import (
    ONE_PLANE_STEPS,
    TWO_PLANE_STEPS,
    round_activations,
)
from featherweight.inference.reference import ReferenceEngine
from featherweight.quantization.formats import Int
from featherweight.quantization.layers import CompressedLinear, TiedHead, compressed_layers
from featherweight.quantization.pipeline import quantize
from featherweight.quantization.plans import Plan
from featherweight.quantization.rounding import Nearest
from featherweight.quantization.transforms import Hadamard

IDS = np.random.default_rng(0).integers(3, 300, 90).tolist()  # more than Gemma's window of 64


def forward_logits(model: Any, ids: Any = IDS) -> Any:
    with torch.no_grad():
        return model(torch.tensor(ids)[None], use_cache=False).logits[0].float().numpy()


def assert_close(logits: Any, reference: Any) -> None:
    np.testing.assert_allclose(logits, reference, atol=2e-4 * np.abs(reference).max())


@pytest.mark.parametrize("make", tiny.ALL)
def test_logits_are_those_of_one_forward(make: Callable[..., Any]) -> None:
    model, _ = make()
    engine, reference = ReferenceEngine(model, "f", "tiny"), forward_logits(model)
    session = engine.session()
    assert_close(engine.forward(session, IDS[:50], "all"), reference[:50])
    assert engine.forward(session, IDS[50:70], "none").shape == (0, 300)
    assert_close(engine.forward(session, IDS[70:80]), reference[79:80])
    assert_close(engine.step([session], [IDS[80]]), reference[80:81])
    assert session.length == 81
    # Rewind, continue with other tokens, and rewind again.
    session.rewind(66)
    engine.forward(session, IDS[::-1][:9])
    session.rewind(66)
    assert_close(engine.forward(session, IDS[66:], "all"), reference[66:])
    state = session.state()
    copy = engine.session(95)
    copy.restore(state, 90)
    np.testing.assert_array_equal(engine.forward(copy, [5]), engine.forward(session, [5]))
    session.rewind(0)
    assert_close(engine.forward(session, IDS[:3], "all"), reference[:3])


def test_what_an_engine_refuses() -> None:
    engine = ReferenceEngine(tiny.llama()[0], "f", "tiny")
    session = engine.session(5)
    engine.forward(session, [1, 2])
    state = session.state()
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
    for bad_state in (
        {},
        {**state, "more": state["0.keys"]},
        {**state, "0.keys": state["0.keys"][:, :1]},
    ):
        with pytest.raises(BadInput, match="state"):
            session.restore(bad_state, 2)
    with pytest.raises(BadInput, match="float16"):
        session.restore({name: array.astype(np.float16) for name, array in state.items()}, 2)


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
    assert_close(engine.forward(session, IDS[4:6], "all"), forward_logits(model)[4:6])


@pytest.fixture(scope="module", params=[8, 4])
def packed_model(request: Any) -> nn.Module:
    """The table is in 8 bits without a rotation, or in 4 bits with one."""
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


def test_int8_rounds_the_input_of_every_compressed_layer(packed_model: Any) -> None:
    model = packed_model
    model = packed_model
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
            is_half = [array == array.astype(np.float16) for array in session.state().values()]
            assert np.all(is_half) == bool(options), "keys and values are in half precision too"
            engine.close()

    reference, multiply = logits(), nn.functional.linear
    inputs: list[torch.Tensor] = []

    def record(x: Any, *args: Any) -> Any:
        inputs.append(x)
        return multiply(x, *args)

    nn.functional.linear = record  # type: ignore[assignment]
    try:
        rounded_logits = logits(int8_activations=True)
    finally:
        nn.functional.linear = multiply
    assert len(inputs) == len([kind for kind in kinds if kind in (CompressedLinear, TiedHead)])
    has_one_plane = [_is_multiple(x, ONE_PLANE_STEPS) for x in inputs]
    assert all(_is_multiple(x, TWO_PLANE_STEPS) for x in inputs)
    assert has_one_plane == [True] * (len(inputs) - 1) + [table.input_rotation], (
        "only the input of the head may have no rotation"
    )
    difference = np.abs(rounded_logits - reference).max() / np.abs(reference).max()
    assert 1e-5 < difference < 0.1
    np.testing.assert_array_equal(logits(), reference)
    assert "as_stored" not in vars(table)


def test_closing_forgets_the_decoded_weights(packed_model: Any) -> None:
    engine = ReferenceEngine(packed_model, "f", "tiny")
    engine.forward(engine.session(), [1])
    layers = compressed_layers(packed_model).values()
    assert all(layer._dense_cache for layer in layers)
    engine.close()
    engine.close()
    assert not any(layer._dense_cache for layer in layers)


def _is_multiple(x: torch.Tensor, steps: int) -> bool:
    codes = x.double() * (steps / x.abs().amax(-1, keepdim=True).double())
    return bool((codes - codes.round()).abs().max() < steps * 1e-6)


def test_rounding() -> None:
    x = torch.tensor([[127.0, 0.5, 1.5, -2.5, -127.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert round_activations(x, ONE_PLANE_STEPS).tolist() == [
        [127.0, 0.0, 2.0, -2.0, -127.0],
        [0.0] * 5,
    ]
    assert torch.equal(round_activations(x, TWO_PLANE_STEPS), x)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_lookup_changes_nothing(temperature: float) -> None:
    model, transformers_tokenizer = tiny.llama()
    engine = ReferenceEngine(model, "f", "tiny")
    tokenizer = ChatTokenizer.of(transformers_tokenizer)
    tokenizer.end_ids = frozenset()
    sampling, prompt = Sampling(24, temperature, top_k=3, seed=1), (IDS[:12] * 3)
    reference = generate(engine, tokenizer, prompt, sampling)
    generation = generate(engine, tokenizer, prompt, sampling, lookup=5)
    assert [delta.tokens for delta in reference] == [delta.tokens for delta in generation]
    assert generation.usage.draft_tokens > 0
