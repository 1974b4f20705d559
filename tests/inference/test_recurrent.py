"""Recurrent models and hybrids on the PyTorch engine: every path to a text gives the logits of one
plain forward, and models that transformers continues wrongly are refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import other_families
import pytest
import tiny
import torch

from featherweight.base.errors import BadInput, Unsupported, UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference import ChatTokenizer, generate
from featherweight.inference.prefix_cache import PrefixCache
from featherweight.inference.recurrent import LONGEST_TEXT
from featherweight.inference.reference import ReferenceEngine

IDS = np.random.default_rng(0).integers(3, 300, 60).tolist()


def mamba() -> tuple[Any, ReferenceEngine]:
    model = other_families.model("mamba")
    return model, ReferenceEngine(model, "f", "tiny")


def forward_logits(model: Any, ids: Any = IDS) -> Any:
    with torch.no_grad():
        return model(torch.tensor(ids)[None], use_cache=False).logits[0].float().numpy()


def assert_close(logits: Any, reference: Any) -> None:
    np.testing.assert_allclose(logits, reference, atol=2e-4 * np.abs(reference).max())


@pytest.mark.parametrize("family", other_families.RECURRENT)
def test_logits_are_those_of_one_forward(family: str) -> None:
    model = other_families.build(family, other_families.RECURRENT[family])
    engine, reference = ReferenceEngine(model, "f", family), forward_logits(model)
    session = engine.session(60)
    assert engine.forward(session, IDS[:10], "none").shape == (0, 300)
    assert_close(engine.forward(session, IDS[10:30], "all"), reference[10:30])
    assert_close(engine.step([session], [IDS[30]]), reference[30:31])
    assert_close(engine.forward(session, IDS[31:32]), reference[31:32])
    assert_close(engine.forward(session, IDS[32:40], "all"), reference[32:40])
    # Rewind, continue with other tokens, and rewind again.
    session.rewind(20)
    engine.forward(session, IDS[::-1][:9])
    session.rewind(20)
    assert_close(engine.step([session], [IDS[20]]), reference[20:21])
    assert_close(engine.forward(session, IDS[21:50], "all"), reference[21:50])
    copy = engine.session(60)
    copy.restore(session.state(), 50)
    for id, row in zip(IDS[50:], reference[50:], strict=True):
        assert_close(engine.step([copy, session], [id, id]), np.stack([row, row]))
    session.rewind(0)
    assert_close(engine.forward(session, IDS[:3], "all"), reference[:3])
    assert copy.length == 60 and session.length == 3
    session.close()
    copy.close()


def test_one_token_after_another_reads_each_token_once() -> None:
    model, engine = mamba()
    lengths: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    session = engine.session()
    engine.forward(session, IDS[:5], "none")
    engine.forward(session, IDS[5:10])
    for id in IDS[10:13]:
        engine.step([session], [id])
    session.rewind(13)
    engine.step([session], [IDS[13]])
    assert lengths == [10, 1, 1, 1, 1]
    session.rewind(12)
    engine.step([session], [IDS[12]])
    assert lengths[5:] == [13]


def test_what_a_session_refuses() -> None:
    _, engine = mamba()
    session = engine.session(5)
    engine.forward(session, IDS[:4])
    state = session.state()
    with pytest.raises(UsageError, match="at most 5"):
        engine.forward(session, IDS[:2])
    with pytest.raises(UsageError, match="rewind"):
        session.rewind(5)
    with pytest.raises(UsageError, match="does not fit"):
        engine.session(3).restore(state, 4)
    tokens = state["tokens"]
    for bad_state in (
        {},
        {**state, "0.keys": tokens},
        {"tokens": tokens[:3]},
        {"tokens": tokens.astype(np.int32)},
        {"tokens": np.full(4, 300)},
    ):
        with pytest.raises(BadInput, match="state"):
            session.restore(bad_state, 4)
    assert session.length == 4


def test_an_interrupted_forward_changes_nothing() -> None:
    model, engine = mamba()
    session = engine.session()
    engine.forward(session, IDS[:4])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model.backbone.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.forward(session, IDS[4:5])
    handle.remove()
    assert session.length == 4
    assert_close(engine.forward(session, IDS[4:5]), forward_logits(model)[4:5])


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_generation_with_drafts_and_a_prefix_cache(temperature: float, tmp_path: Path) -> None:
    _, engine = mamba()
    tokenizer = ChatTokenizer.of(tiny.tokenizer())
    tokenizer.end_ids = frozenset()
    sampling, prompt = Sampling(24, temperature, top_k=3, seed=1), IDS[:12] * 3
    reference = [delta.tokens for delta in generate(engine, tokenizer, prompt, sampling)]
    drafted = generate(engine, tokenizer, prompt, sampling, lookup=5)
    assert [delta.tokens for delta in drafted] == reference
    cache = PrefixCache(tmp_path)
    for _ in range(2):
        cached = generate(engine, tokenizer, prompt, sampling, cache=cache)
        assert [delta.tokens for delta in cached] == reference
    assert cached.usage.cached_tokens == len(prompt) - 1


def test_a_model_without_a_limit_has_the_longest_context() -> None:
    model = other_families.model("mamba")
    model.config.max_position_embeddings = None
    assert ReferenceEngine(model, "f", "tiny").context == LONGEST_TEXT


@pytest.mark.parametrize("family", ["rwkv", "bamba", "recurrent_gemma"])
def test_models_that_are_continued_wrongly_are_refused(family: str) -> None:
    """RWKV has another kind of cache, Recurrent Gemma keeps states in its modules, and those of
    Bamba are wrong in the version of transformers that tests run with. Where a later version is
    right, the engine runs it.
    """
    settings = {
        "recurrent_gemma": {
            **other_families.GROUPED,
            "num_hidden_layers": 3,
            "lru_width": 64,
            "attention_window_size": 16,
            "head_dim": 16,
        },
        "rwkv": {"hidden_size": 64, "attention_hidden_size": 64, "num_hidden_layers": 2},
        "bamba": {
            **other_families.GROUPED,
            **other_families.HEADS,
            "num_hidden_layers": 4,
            "attn_layer_indices": [1],
        },
    }[family]
    model = other_families.build(family, settings)
    try:
        engine = ReferenceEngine(model, "f", "tiny")
    except Unsupported as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert f"tiny has recurrent layers ({family})" in message and "fw evaluate" in message
        return
    sessions = [engine.session(), engine.session()]
    for session in sessions:
        engine.forward(session, IDS[:20])
    rows = [engine.step(sessions, [id, 5])[0] for id in IDS[20:]]
    assert_close(np.stack(rows), forward_logits(model)[20:])
