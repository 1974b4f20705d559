"""What samplers report is what a plain forward pass computes, and the loss weighs what another
policy has sampled.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny_policy
import torch

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference import ReferenceEngine
from featherweight.models.sampling import Rollouts
from featherweight.reasoning.advantages import RewardControl
from featherweight.reasoning.control_state import ControlState
from featherweight.reasoning.generations import Generations, Settings
from featherweight.reasoning.logprobs import stored_logprobs
from featherweight.reasoning.loop import train
from featherweight.reasoning.policy_loss import PolicyLoss
from featherweight.reasoning.rewards import Sizes
from featherweight.reasoning.samplers import (
    EngineSampler,
    LocalSampler,
    Sampler,
    TransformersSampler,
)

PROMPTS = [(3, 4), (5, 6, 7, 8, 9), (10,)]
SAMPLING = Sampling(max_tokens=tiny_policy.LIMIT, temperature=0.7)


def engine(model: Any) -> ReferenceEngine:
    return ReferenceEngine(model.eval(), "tiny", "tiny")


def make(kind: str, model: Any) -> Sampler:
    if kind == "engine":
        return EngineSampler(engine, tiny_policy.END_IDS)
    return {"local": LocalSampler, "transformers": TransformersSampler}[kind](
        model, tiny_policy.END_IDS
    )


def generate(sampler: Sampler, model: Any, seed: int = 0) -> Rollouts:
    sampler.update_weights(model)
    texts = sampler.generate(PROMPTS, 5, SAMPLING, seed)
    sampler.close()
    return texts


@pytest.mark.parametrize("kind", ["local", "transformers", "engine"])
def test_logprobs_are_those_of_a_plain_forward_pass(kind: str) -> None:
    """Prompts of unequal lengths, at a temperature, each text alone and without padding."""
    model = tiny_policy.policy()
    texts = generate(make(kind, model), model)
    assert texts.group.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert {"end", "length"} == set(texts.finish)
    for row, finish in enumerate(texts.finish):
        prompt, answer = PROMPTS[row // 5], texts.answer(row)
        start, end = len(prompt), len(prompt) + len(answer)
        assert texts.tokens[row, :start].tolist() == list(prompt)
        assert texts.mask[row].nonzero()[:, 0].tolist() == list(range(start, end))
        assert int(texts.prompt_lengths[row]) == start
        ends = [token in tiny_policy.END_IDS for token in answer]
        assert not any(ends[:-1]) and ends[-1] == (finish == "end")
        assert finish == "end" or len(answer) == tiny_policy.LIMIT
        with torch.no_grad():
            logits = model(texts.tokens[row : row + 1, :end]).logits[0, start - 1 : -1]
        expected = (logits / 0.7).log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
        torch.testing.assert_close(texts.logprobs[row, start:end], expected, rtol=0, atol=1e-5)
        assert not texts.logprobs[row][~texts.mask[row]].any()


@pytest.mark.parametrize("kind", ["local", "transformers", "engine"])
def test_seeds_and_weights(kind: str) -> None:
    """The same seed gives the same texts, another seed or other weights give others, and the
    caller's random state stays.
    """
    model, other = tiny_policy.policy(), tiny_policy.policy(seed=1)
    sampler = make(kind, model)
    before = torch.random.get_rng_state()
    one = generate(sampler, model)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(generate(sampler, model).tokens, one.tokens)
    assert generate(sampler, model, seed=1).finish != one.finish
    changed = generate(sampler, other)
    assert changed.finish != one.finish
    assert torch.equal(generate(make(kind, other), other).tokens, changed.tokens)


def test_the_models_own_generation_settings_are_left_out() -> None:
    """A penalty there would draw from another distribution than the one that is reported."""
    model = tiny_policy.policy()
    expected = generate(TransformersSampler(model, tiny_policy.END_IDS), model)
    settings = model.generation_config
    settings.repetition_penalty, settings.min_new_tokens = 5.0, 4
    actual = generate(TransformersSampler(model, tiny_policy.END_IDS), model)
    assert torch.equal(actual.tokens, expected.tokens)
    assert model.generation_config is settings


def test_modes_stay() -> None:
    model = tiny_policy.policy()
    for kind in ("local", "transformers"):
        generate(make(kind, model.train()), model)
        assert model.training and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", ["local", "transformers", "engine"])
def test_bad_prompts(kind: str) -> None:
    model = tiny_policy.policy()
    sampler = make(kind, model)
    sampler.update_weights(model)
    with pytest.raises(UsageError, match="prompt"):
        sampler.generate([(3,), ()], 2, SAMPLING, 0)
    with pytest.raises(UsageError, match="prompt 1 .* context of 64"):
        sampler.generate([(3,), (3,) * 60], 2, SAMPLING, 0)
    sampler.close()


def test_bad_settings() -> None:
    model = tiny_policy.policy(end_id=None)
    for kind in (LocalSampler, TransformersSampler):
        with pytest.raises(BadInput, match="no end token"):
            kind(model)
    with pytest.raises(BadInput, match="no end token"):
        EngineSampler(engine, ())
    with pytest.raises(UsageError, match="update_weights"):
        EngineSampler(engine, [0]).generate(PROMPTS, 1, SAMPLING, 0)
    for change in ({"temperature": 0.0}, {"top_k": 3}, {"repetition_penalty": 1.5}):
        with pytest.raises(UsageError, match="truncates nothing"):
            TransformersSampler(model, [0]).generate(PROMPTS, 1, replace(SAMPLING, **change), 0)
    with pytest.raises(UsageError, match="stop texts"):
        TransformersSampler(model, [0]).generate(PROMPTS, 1, replace(SAMPLING, stop=("a",)), 0)


def rounded(model: Any) -> ReferenceEngine:
    """An engine over weights that were rounded coarsely."""
    other = tiny_policy.policy()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_((parameter * 8).round() / 8)
    return engine(other)


def test_an_engine_is_a_behaviour_policy() -> None:
    """Its log-probabilities are in the batch, and the loss weighs each token with the ratio of the
    policy to it, up to the cap.
    """
    model = tiny_policy.policy()
    settings = Settings(prompts=4, group=4, sampling=SAMPLING, bf16=False)
    sampler = EngineSampler(rounded, tiny_policy.END_IDS)
    state = ControlState(RewardControl(), Sizes())
    batches = Generations(
        model, tiny_policy.questions(), sampler, tiny_policy.marking(), state, settings
    )
    batch = batches[0]
    own = stored_logprobs(model, batch, 0.7)
    assert torch.equal(batch["old_logprobs"], own)
    mask = batch["loss_mask"]
    weights = (own - batch["behaviour_logprobs"]).exp()[mask].clamp(max=1.05)
    assert 0.2 < float(weights.min()) < 0.99 and float(weights.max()) == pytest.approx(1.05)
    method = tiny_policy.method()
    loss = PolicyLoss(method.surrogate, method.aggregate, temperature=0.7, cap=1.05)(model, batch)
    mean = float(loss.parts["behaviour_weight"]) / float(loss.weight)
    assert mean == pytest.approx(float(weights.mean()), abs=1e-5)
    advantages = batch["advantages"][:, None].expand_as(mask)[mask]
    # The ratio of the update is 1, so a term is - weight A.
    expected = -(weights * advantages).sum() / tiny_policy.LIMIT
    torch.testing.assert_close(loss.total.detach(), expected, rtol=1e-5, atol=1e-6)
    sampler.close()


def test_a_run_with_an_engine() -> None:
    model = tiny_policy.policy()
    sampler = EngineSampler(rounded, tiny_policy.END_IDS)
    recipe = replace(tiny_policy.RECIPE, updates=2, temperature=0.7)
    run = train(
        model,
        tiny_policy.questions(),
        sampler,
        tiny_policy.marking(),
        RewardControl(),
        tiny_policy.method(),
        recipe,
    )
    steps = [step.step for step in run]
    assert len(steps) == 4
    assert all(0.5 < step.parts["behaviour_weight"] < 1.5 for step in steps)
    sampler.close()
