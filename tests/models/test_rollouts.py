"""Samples for training: exact log-probabilities, the same texts in any batch, and no work for texts
that have ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import other_families
import pytest
import tiny
import torch

from featherweight import data
from featherweight.base.errors import BadInput, Unsupported, UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference import ReferenceEngine, engine_rollouts
from featherweight.models.sampling import Rollouts, rollouts, text_seed
from featherweight.models.scratch import scratch_model
from featherweight.ops.sampling import Sampler
from featherweight.ops.sampling.batched import truncate

RANDOM = np.random.default_rng(0)
PROMPTS = [RANDOM.integers(3, 300, length).tolist() for length in (5, 70, 5, 17)]
SHARP = Sampling(max_tokens=12, temperature=0.8, top_p=0.9)


def texts(samples: Rollouts) -> list[tuple[Any, ...]]:
    return [(tuple(samples.answer(i)), samples.finish[i]) for i in range(len(samples.finish))]


@pytest.mark.parametrize("make", tiny.ALL)
def test_logprobs_are_those_of_one_forward(make: Callable[..., Any]) -> None:
    """`ratio_is_one_on_policy`, left padding and sliding windows: every row alone, without a cache,
    has the log-probabilities that sampling reported.
    """
    model, _ = make()
    samples = rollouts(model.float(), PROMPTS, 3, SHARP, end_ids=range(40))
    assert samples.group.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for row, ids in enumerate(samples.tokens):
        start, count = int(samples.prompt_lengths[row]), int(samples.lengths[row])
        prompt = PROMPTS[int(samples.group[row])]
        assert ids[:start].tolist() == prompt
        assert samples.mask[row].nonzero()[:, 0].tolist() == list(range(start, start + count))
        with torch.no_grad():
            logits = model(ids[None, : start + count]).logits[0, start - 1 : -1].float()
        scores = logits / SHARP.temperature
        targets = torch.tensor(samples.answer(row))[:, None]
        for field, reference in (
            (samples.logprobs, scores),
            (samples.truncated_logprobs, truncate(scores, SHARP)),
        ):
            expected = reference.log_softmax(-1).gather(1, targets)[:, 0]
            torch.testing.assert_close(field[row][samples.mask[row]], expected, rtol=0, atol=3e-3)
            assert not field[row][~samples.mask[row]].any()


@pytest.mark.parametrize("name", ["stablelm", "gpt_neox", "falcon", "opt", "gpt_bigcode"])
def test_other_families(name: str) -> None:
    model = other_families.model(name).double()
    alone = [rollouts(model, [prompt], 1, SHARP).tokens[0, len(prompt) :] for prompt in PROMPTS]
    samples = rollouts(model, [PROMPTS[i] for i in (0, 1, 3)], 1, SHARP)
    for row, i in enumerate((0, 1, 3)):
        assert samples.answer(row) == alone[i].tolist()[: int(samples.lengths[row])]


def test_compaction_same_samples() -> None:
    model = tiny.llama()[0].double()
    options: dict[str, Any] = {"seed": 3, "end_ids": range(60)}
    samples = rollouts(model, PROMPTS, 4, SHARP, **options)
    reference = texts(samples)
    assert {"end", "length"} == set(samples.finish)
    assert len(set(reference)) > 12
    for batch_size in (1, 3, 5, 16):
        other = rollouts(model, PROMPTS, 4, SHARP, **options, batch_size=batch_size)
        assert texts(other) == reference
        torch.testing.assert_close(other.logprobs, samples.logprobs, rtol=0, atol=1e-6)
    reverse = texts(rollouts(model, PROMPTS[::-1], 4, SHARP, **options))
    for group in range(4):
        assert reverse[4 * group : 4 * group + 4] == reference[12 - 4 * group : 16 - 4 * group]
    # More samples begin with the same ones, and equal prompts go on counting.
    assert texts(rollouts(model, PROMPTS[:1], 8, SHARP, **options))[:4] == reference[:4]
    twice = texts(rollouts(model, [PROMPTS[0]] * 2, 4, SHARP, **options))
    assert twice == texts(rollouts(model, PROMPTS[:1], 8, SHARP, **options))
    assert texts(rollouts(model, PROMPTS, 4, SHARP, **{**options, "seed": 4})) != reference


def test_a_text_is_that_of_the_numpy_sampler() -> None:
    model = tiny.llama()[0].double()
    sampling = Sampling(max_tokens=8, temperature=1.1, top_k=40, repetition_penalty=1.2)
    samples = rollouts(model, PROMPTS, 2, sampling, 5)
    for row in range(8):
        prompt, number = PROMPTS[row // 2], row % 2
        seed = text_seed(5, prompt, number)
        options = {**vars(sampling), "seed": seed}
        sampler, ids = Sampler(Sampling(**options), prompt), list(prompt)
        for token in samples.answer(row):
            with torch.no_grad():
                logits = model(torch.tensor(ids)[None]).logits[0, -1].float().numpy()
            assert sampler.choose(logits).token == token
            ids.append(token)


def test_an_engine_gives_the_same_samples() -> None:
    model = tiny.llama()[0].double()
    samples = rollouts(model, PROMPTS, 3, SHARP, 1, end_ids=range(60))
    engine = ReferenceEngine(model, "f", "tiny")
    for batch_size in (4, 64):
        other = engine_rollouts(
            engine, PROMPTS, 3, SHARP, 1, end_ids=range(60), batch_size=batch_size
        )
        assert texts(other) == texts(samples)
        torch.testing.assert_close(other.logprobs, samples.logprobs, rtol=0, atol=1e-5)


def test_a_prompt_is_read_once_and_the_batch_shrinks() -> None:
    model, _ = tiny.llama()
    shapes: list[tuple[int, ...]] = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    samples = rollouts(model, PROMPTS, 4, SHARP, end_ids=range(60))
    handle.remove()
    assert shapes[0] == (4, 70) and all(length == 1 for _, length in shapes[1:])
    # Step s is computed for the texts that have more than s tokens.
    counts = [int((samples.lengths > step).sum()) for step in range(1, len(shapes))]
    assert [rows for rows, _ in shapes[1:]] == counts and counts[0] > counts[-1]


def test_first_tokens_have_the_models_distribution() -> None:
    """Chi-squared over 4,000 samples; tokens that are expected less than 8 times are one cell."""
    model, _ = tiny.llama()
    sampling = Sampling(max_tokens=1, temperature=0.7)
    with torch.no_grad():
        logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1].double()
    expected = 4000 * (logits / sampling.temperature).softmax(-1)
    samples = rollouts(model, PROMPTS[:1], 4000, sampling, end_ids=(), batch_size=4000)
    counts = torch.bincount(samples.tokens[:, -1], minlength=300).double()
    cells = expected >= 8
    pairs = [(*pair,) for pair in zip(counts[cells], expected[cells], strict=True)]
    pairs.append((counts[~cells].sum(), expected[~cells].sum()))
    statistic = float(sum((count - mean) ** 2 / mean for count, mean in pairs))
    # Normal approximation of the 99.9 % point.
    assert statistic < len(pairs) - 1 + 3.3 * (2 * (len(pairs) - 1)) ** 0.5


def test_endings() -> None:
    tokenizer = data.byte_tokenizer()
    model = scratch_model(259, 32, 1, 2)
    prompt = tokenizer("abc").input_ids
    sampling = Sampling(max_tokens=400, temperature=1.0, stop=("é", "e"))
    samples = rollouts(model, [prompt], 6, sampling, tokenizer=tokenizer)
    assert set(samples.finish) == {"end", "stop"}
    for row, finish in enumerate(samples.finish):
        answer = samples.answer(row)
        assert (answer[-1] == 0) == (finish == "end")
        text = tokenizer.decode(answer, skip_special_tokens=True)
        assert ("e" in text or "é" in text) == (finish == "stop")
    greedy = Sampling(max_tokens=3, temperature=0)
    samples = rollouts(model, [prompt], 2, greedy)
    assert samples.finish == ("length",) * 2 and samples.answer(0) == samples.answer(1)
    assert not samples.truncated_logprobs.any()
    # The end token of the configuration is 0, and the padding too.
    assert model.config.eos_token_id == 0


def test_the_model_stays_as_it_was() -> None:
    model = scratch_model(259, 32, 1, 2).train()
    names, state = [name for name, _ in model.named_modules()], torch.random.get_rng_state()
    samples = rollouts(model, [[1, 2], [3]], 2, Sampling(max_tokens=3))
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert [name for name, _ in model.named_modules()] == names
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not samples.logprobs.requires_grad
    # Nothing of earlier weights is kept.
    before = rollouts(model, [[1, 2]], 1, Sampling(max_tokens=3)).logprobs
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(2)
    assert not torch.equal(before, rollouts(model, [[1, 2]], 1, Sampling(max_tokens=3)).logprobs)


def test_what_is_refused() -> None:
    model = scratch_model(259, 32, 1, 2, context=20)
    for prompts, options, words in (
        ([], {}, "at least"),
        ([[]], {}, "at least"),
        ([[1]], {"samples": 0}, "at least"),
        ([[1]], {"batch_size": 0}, "at least"),
        ([[1], [259]], {}, "prompt 1 has tokens outside"),
        ([[1] * 17], {}, "context of 20"),
        ([[1]], {"sampling": Sampling(max_tokens=4, seed=1)}, "seed"),
        ([[1]], {"sampling": Sampling(max_tokens=4, stop=("x",))}, "tokenizer"),
    ):
        with pytest.raises(UsageError, match=words):
            rollouts(model, prompts, **{"sampling": Sampling(max_tokens=4), **options})
    with pytest.raises(Unsupported, match="recurrent"):
        rollouts(other_families.model("mamba"), [[1]])
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(torch.nan)
    with pytest.raises(BadInput, match="not finite"):
        rollouts(model, [[1]], sampling=Sampling(max_tokens=4))
    assert model.training
