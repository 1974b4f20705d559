"""Text of the model itself: seeded, drawn from the model's distribution, and equal with and without
the cache.
"""

from __future__ import annotations

import pytest
import tiny
import torch

from featherweight import data
from featherweight.base.errors import BadInput, UsageError
from featherweight.base.events import Event
from featherweight.data import model_text


def test_generated_has_the_shape_and_both_openings() -> None:
    model, tokenizer = tiny.llama()
    events: list[Event] = []
    calibration = data.calibration_from_model(
        model, tokenizer, count=10, length=24, batch=4, listener=events.append
    )
    assert calibration.tokens.shape == (10, 24)
    assert calibration.origins == ("generated", "generated_chat") * 5
    assert bool((calibration.tokens[::2, 0] == tokenizer.bos_token_id).all())
    assert all(
        tokenizer.decode(row).startswith("<|im_start|>user\n") for row in calibration.tokens[1::2]
    )
    assert [s["sequences"] for s in calibration.fingerprint["sources"]] == [5, 5]
    assert calibration.fingerprint["template"]
    assert events[-1].done == events[-1].total == 4


def test_generated_is_seeded() -> None:
    model, tokenizer = tiny.llama()
    first = data.calibration_from_model(model, tokenizer, count=4, length=16, seed=5)
    torch.rand(1)
    same_seed = data.calibration_from_model(model, tokenizer, count=4, length=16, seed=5)
    other_seed = data.calibration_from_model(model, tokenizer, count=4, length=16, seed=6)
    assert torch.equal(first.tokens, same_seed.tokens)
    assert not torch.equal(first.tokens, other_seed.tokens)


def test_without_a_template_everything_starts_from_nothing() -> None:
    model, tokenizer = tiny.llama()
    tokenizer.chat_template = None
    calibration = data.calibration_from_model(model, tokenizer, count=4, length=16)
    assert set(calibration.origins) == {"generated"}
    assert calibration.fingerprint["template"] is None


@pytest.mark.parametrize("make", tiny.ALL)
def test_the_cache_changes_nothing(make: object) -> None:
    """The same draws from the logits of the whole sequence give the same tokens."""
    model, _ = make()  # type: ignore[operator]
    tokens = model_text.sample(model, [1], 3, 12, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    for length in range(1, 12):
        with torch.no_grad():
            logits = model(tokens[:, :length], use_cache=False).logits[:, -1]
        next_tokens = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)
        assert torch.equal(next_tokens[:, 0], tokens[:, length])


def test_the_mode_of_the_model_is_put_back() -> None:
    model, _ = tiny.llama()
    model.train()
    model_text.sample(model, [1], 1, 4, torch.Generator())
    assert model.training


def test_impossible_requests_are_refused() -> None:
    model, tokenizer = tiny.llama()
    with pytest.raises(UsageError, match="cannot sample 0 sequences"):
        data.calibration_from_model(model, tokenizer, count=0)
    with pytest.raises(UsageError, match="no room after an opening of 7"):
        model_text.sample(model, [1] * 7, 1, 7, torch.Generator())
    with torch.no_grad():
        model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(BadInput, match="not finite"):
        data.calibration_from_model(model, tokenizer, count=2, length=8)


def test_a_model_that_repeats_itself_is_refused() -> None:
    model, tokenizer = tiny.llama()
    with torch.no_grad():
        model.model.norm.weight.mul_(1e4)  # one token has all the probability
    with pytest.raises(BadInput, match="the same 16 tokens twice"):
        data.calibration_from_model(model, tokenizer, count=4, length=16)
