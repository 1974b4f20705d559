"""The native engine as sampler of a policy: 8-bit weights that follow the policy's."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from featherweight.base.errors import UsageError
from featherweight.base.sampling import Sampling
from featherweight.reasoning.logprobs import stored_logprobs
from featherweight.reasoning.samplers import EngineSampler
from featherweight.workflows.policy_engine import int8_engine

PROMPTS = [[5, 6, 7], [8, 9]]


def test_the_engine_follows_the_policy(tmp_path: Path) -> None:
    model, tokenizer = tiny.llama()
    sampler = EngineSampler(int8_engine(tokenizer, tmp_path), [0])
    with pytest.raises(UsageError, match="update_weights"):
        sampler.generate(PROMPTS, 2, Sampling(max_tokens=8), 0)
    fingerprints = []
    for _ in range(2):
        sampler.update_weights(model)
        assert sampler._engine is not None
        fingerprints.append(sampler._engine.fingerprint)
        texts = sampler.generate(PROMPTS, 2, Sampling(max_tokens=8), 0)
        width = texts.tokens.shape[1]
        ends = texts.prompt_lengths + texts.lengths
        batch = {
            "input_ids": texts.tokens,
            "attention_mask": (torch.arange(width) < ends[:, None]).long(),
            "loss_mask": texts.mask,
        }
        # A behaviour policy: near the policy in 8 bits, and not it.
        difference = (stored_logprobs(model, batch, 1.0) - texts.logprobs).abs()[texts.mask]
        assert 0 < float(difference.mean()) < 0.2
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.02)
    sampler.close()
    assert fingerprints[0] != fingerprints[1]
    assert list(tmp_path.iterdir()) == []


def test_the_policy_itself_is_not_changed(tmp_path: Path) -> None:
    model, tokenizer = tiny.llama()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    int8_engine(tokenizer, tmp_path)(model).close()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
