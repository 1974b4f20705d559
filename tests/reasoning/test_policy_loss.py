"""Every method against a twin written in loops, in float64, with values and gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from featherweight.base.errors import UsageError
from featherweight.base.sampling import Sampling
from featherweight.models.sampling import rollouts
from featherweight.models.scratch import scratch_model
from featherweight.reasoning.aggregates import LocalTokenMean, PerText, PerTextSum, TokenMean
from featherweight.reasoning.logprobs import answer_tokens, stored_logprobs
from featherweight.reasoning.methods import METHODS, Method
from featherweight.reasoning.policy_loss import PolicyLoss, k3
from featherweight.reasoning.surrogates import Clip, ClippedWeight, SequenceClip

LIMIT, TEMPERATURE, KL, CAP = 7, 0.7, 0.1, 1.05
# Prompt and answer of each text; the third does not count.
SIZES = [(2, 5), (3, 1), (2, 4), (4, 7), (1, 3)]
COUNTS = [True, True, False, True, True]


def model(seed: int = 0) -> Any:
    return scratch_model(11, 16, 1, 2, context=32, seed=seed).double()


def batch() -> dict[str, Tensor]:
    """Texts padded at the end, with log-probabilities that are near those of the model."""
    generator = torch.Generator().manual_seed(0)
    width = max(sum(size) for size in SIZES)
    ids = torch.randint(0, 11, (len(SIZES), width), generator=generator)
    places = torch.arange(width)
    starts = torch.tensor([prompt for prompt, _ in SIZES])[:, None]
    ends = torch.tensor([prompt + answer for prompt, answer in SIZES])[:, None]
    mask = (places >= starts) & (places < ends) & torch.tensor(COUNTS)[:, None]
    content = {
        "input_ids": ids,
        "attention_mask": (places < ends).long(),
        "loss_mask": mask,
        "advantages": torch.tensor([0.7, -0.4, 9.0, -1.2, 0.3]).double(),
    }
    own = stored_logprobs(model(), content, TEMPERATURE).double()
    for index, name in enumerate(("old", "behaviour", "reference")):
        noise = torch.randn(ids.shape, generator=torch.Generator().manual_seed(index + 1))
        content[f"{name}_logprobs"] = own + 0.4 * noise.double()
    return content


def policy_loss(method: Method, **settings: Any) -> PolicyLoss:
    return PolicyLoss(method.surrogate, method.aggregate, temperature=TEMPERATURE, **settings)


@dataclass
class Token:
    """Numbers of one token, of which `logprob` has a gradient."""

    text: int
    logprob: Any
    old: float
    behaviour: float
    reference: float


def read(network: Any, content: dict[str, Tensor]) -> list[Token]:
    """The tokens that count, each text alone and without padding."""
    tokens = []
    for text, (prompt, answer) in enumerate(SIZES):
        if not bool(content["loss_mask"][text].any()):
            continue
        ids = content["input_ids"][text, : prompt + answer]
        scores = network(ids[None]).logits[0] / TEMPERATURE
        for place in range(prompt, prompt + answer):
            row = scores[place - 1]
            logprob = row[ids[place]] - row.exp().sum().log()
            others = [
                float(content[f"{name}_logprobs"][text, place])
                if f"{name}_logprobs" in content
                else float(logprob.detach())
                for name in ("old", "behaviour", "reference")
            ]
            tokens.append(Token(text, logprob, *others))
    return tokens


def term(surrogate: Any, token: Token, advantage: float, mates: list[Token]) -> Any:
    """What the paper writes for one token."""
    if isinstance(surrogate, ClippedWeight):
        weight = min(math.exp(float(token.logprob.detach()) - token.old), surrogate.high)
        return -weight * advantage * token.logprob
    if isinstance(surrogate, SequenceClip):
        mean = sum(mate.logprob - mate.old for mate in mates) / len(mates)
        weight = mean.exp()
    else:
        weight = (token.logprob - token.old).exp()
    bounded = weight
    if float(weight.detach()) > 1 + surrogate.high:
        bounded = torch.tensor(1 + surrogate.high)
    if float(weight.detach()) < 1 - surrogate.low:
        bounded = torch.tensor(1 - surrogate.low)
    left, right = weight * advantage, bounded * advantage
    return -(left if float(left.detach()) < float(right.detach()) else right)


def twin(method: Method, network: Any, content: dict[str, Tensor], kl: float) -> Any:
    """The loss of one micro-batch."""
    tokens = read(network, content)
    texts = sorted({token.text for token in tokens})
    total, sums, num_tokens = 0, dict.fromkeys(texts, 0), len(tokens)
    counts = {text: sum(token.text == text for token in tokens) for text in texts}
    for token in tokens:
        mates = [mate for mate in tokens if mate.text == token.text]
        advantage = float(content["advantages"][token.text])
        number = term(method.surrogate, token, advantage, mates)
        if "behaviour_logprobs" in content:
            number = number * min(math.exp(token.old - token.behaviour), CAP)
        difference = token.reference - token.logprob
        number = number + kl * (difference.exp() - difference - 1)
        sums[token.text] = sums[token.text] + number
        total = total + number
    if isinstance(method.aggregate, PerText):
        return sum(sums[text] / counts[text] for text in texts) / len(texts)
    if isinstance(method.aggregate, PerTextSum):
        return sum(sums.values()) / LIMIT / len(texts)
    assert isinstance(method.aggregate, TokenMean | LocalTokenMean)
    return total / num_tokens


def gradients(network: Any, loss: Any) -> list[Tensor]:
    network.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kl", [0.0, KL])
def test_losses_equal_twins(name: str, kl: float) -> None:
    method, network, content = METHODS[name](LIMIT), model(), batch()
    if name == "cispo":
        method = replace(method, surrogate=ClippedWeight(1.1))
    loss = policy_loss(method, kl=kl, cap=CAP)(network, content)
    actual = loss.total / loss.weight
    expected = twin(method, network, content, kl)
    torch.testing.assert_close(actual.detach(), expected.detach(), rtol=0, atol=1e-6)
    for left, right in zip(gradients(network, actual), gradients(network, expected), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
    assert float(loss.parts["clipped"]) > 0


@pytest.mark.parametrize("name", METHODS)
def test_on_policy_gradient(name: str) -> None:
    """At step 0 the ratio is 1, and the gradient is that of REINFORCE, -A grad log p."""
    method, network, content = METHODS[name](LIMIT), model(), batch()
    for other in ("old", "behaviour", "reference"):
        del content[f"{other}_logprobs"]
    loss = policy_loss(method)(network, content)
    actual = gradients(network, loss.total / loss.weight)
    tokens = read(network, content)
    texts = sorted({token.text for token in tokens})
    counts = {text: sum(token.text == text for token in tokens) for text in texts}
    weights = {
        PerText: lambda text: 1 / counts[text] / len(texts),
        PerTextSum: lambda text: 1 / LIMIT / len(texts),
        TokenMean: lambda text: 1 / len(tokens),
        LocalTokenMean: lambda text: 1 / len(tokens),
    }[type(method.aggregate)]
    expected = sum(
        -content["advantages"][token.text] * token.logprob * weights(token.text) for token in tokens
    )
    for left, right in zip(actual, gradients(network, expected), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
    assert float(loss.parts["clipped"]) == 0


@pytest.mark.parametrize("name", METHODS)
def test_microbatch_invariant(name: str) -> None:
    """Divided into unequal parts, of which one has no text that counts."""
    method, network, content = METHODS[name](LIMIT), model(), batch()
    loss = policy_loss(method, kl=KL, cap=CAP)
    one = loss(network, content)
    whole = gradients(network, one.total / one.weight)
    network.zero_grad()
    parts = [
        loss(network, {key: rows[part] for key, rows in content.items()})
        for part in (slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 5))
    ]
    assert float(parts[2].weight) == 0 and float(parts[2].total.detach()) == 0
    total = sum(part.total for part in parts) / sum(part.weight for part in parts)
    difference = max(
        float((left - right).abs().max())
        for left, right in zip(gradients(network, total), whole, strict=True)
    )
    if isinstance(method.aggregate, LocalTokenMean):
        assert difference > 1e-4  # it depends on the division, as documented
    else:
        assert difference < 1e-6
        torch.testing.assert_close(total.detach(), (one.total / one.weight).detach())


def test_a_batch_in_which_nothing_counts_has_no_gradient() -> None:
    for name in METHODS:
        network, content = model(), batch()
        content["loss_mask"] &= False
        loss = policy_loss(METHODS[name](LIMIT), kl=KL)(network, content)
        assert float(loss.weight) == 0 and float(loss.total.detach()) == 0
        assert all(math.isfinite(float(part)) for part in loss.parts.values())
        loss.total.backward()
        for parameter in network.parameters():
            assert parameter.grad is None or not parameter.grad.any()


def test_k3() -> None:
    """d = log 2: 2 - log 2 - 1 = .30685; d = 0: 0; d = -1: 1 / e = .36788; d = 30: capped."""
    reference = torch.tensor([math.log(2), 0.0, -1.0, 30.0])
    numbers = k3(torch.zeros(4), reference)
    torch.testing.assert_close(numbers, torch.tensor([0.306853, 0, 0.367879, 10]))
    # The mean over the policy's own samples is the KL: p = (.5, .5), reference (.9, .1).
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    torch.testing.assert_close((p * k3(p.log(), q.log())).sum(), (p * (p / q).log()).sum())


def test_clip_by_hand() -> None:
    """w = 1.5 and .5, bounds .8 and 1.28: for A = 1 the terms are -1.28 and -.5, for A = -1 they
    are 1.5 and .8.
    """
    logprobs, old = torch.tensor([1.5, 0.5] * 2).log(), torch.zeros(4)
    advantages, text = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.zeros(4).long()
    surrogate = Clip(0.2, 0.28)
    torch.testing.assert_close(
        surrogate.terms(logprobs, old, advantages, text), torch.tensor([-1.28, -0.5, 1.5, 0.8])
    )
    is_clipped = surrogate.is_clipped(logprobs, old, advantages, text)
    assert is_clipped.tolist() == [True, False, False, True]


def test_extreme_ratios_are_finite() -> None:
    logprobs = torch.tensor([0.0, -1e4], requires_grad=True)
    old, advantages = torch.tensor([-1e4, 0.0]), torch.tensor([-1.0, 1.0])
    for surrogate in (Clip(), SequenceClip(), ClippedWeight()):
        terms = surrogate.terms(logprobs, old, advantages, torch.arange(2))
        terms.sum().backward()
        assert bool(terms.isfinite().all())
    assert logprobs.grad is not None and bool(logprobs.grad.isfinite().all())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_ratio_is_one_on_policy(temperature: float) -> None:
    """What sampling reported is what the loss computes, at the temperature of the sampling; at
    another temperature it is not.
    """
    network = model()
    samples = rollouts(
        network, [[1, 2], [3, 4, 5, 6]], 4, Sampling(max_tokens=6, temperature=temperature), 0
    )
    ends = samples.prompt_lengths + samples.lengths
    content = {
        "input_ids": samples.tokens,
        "attention_mask": (torch.arange(samples.tokens.shape[1]) < ends[:, None]).long(),
        "loss_mask": samples.mask,
    }
    tokens = answer_tokens(network, content, temperature)
    sampled = tokens.select(samples.logprobs)
    assert len(sampled) == int(samples.lengths.sum())
    torch.testing.assert_close(tokens.logprobs.detach().float(), sampled, rtol=0, atol=1e-5)
    stored = stored_logprobs(network, content, temperature)
    torch.testing.assert_close(stored.float(), samples.logprobs, rtol=0, atol=1e-5)
    other = answer_tokens(network, content, 1.3).logprobs.detach()
    assert float((other - sampled).abs().max()) > 0.01


def test_left_pad_logits() -> None:
    """The log-probabilities of a text do not depend on the padding of its batch."""
    network, content = model(), batch()
    whole = stored_logprobs(network, content, TEMPERATURE)
    for text, (prompt, answer) in enumerate(SIZES):
        rows = {
            key: content[key][text : text + 1, : prompt + answer]
            for key in ("input_ids", "attention_mask", "loss_mask")
        }
        alone = stored_logprobs(network, rows, TEMPERATURE)
        torch.testing.assert_close(whole[text, : prompt + answer], alone[0], rtol=0, atol=1e-6)
        assert not whole[text, prompt + answer :].any()


def test_a_capped_head_is_divided_after_the_cap() -> None:
    """Gemma's logits are c tanh(x / c); the temperature divides these, not x."""
    from featherweight.ops.divergence import Projection
    from featherweight.reasoning.logprobs import _divide

    hidden, weight = torch.randn(3, 4), torch.randn(5, 4)
    one = Projection(hidden, weight, None, 2.0, 1.5)
    torch.testing.assert_close(_divide(one, 0.7).logits(), one.logits() / 0.7)


def test_what_is_refused() -> None:
    method = METHODS["grpo"](LIMIT)
    content = batch()
    del content["reference_logprobs"]
    with pytest.raises(UsageError, match="reference model"):
        policy_loss(method, kl=0.1)(model(), content)
    with pytest.raises(UsageError, match="greedy"):
        PolicyLoss(Clip(), TokenMean(), temperature=0.0)(model(), batch())
    for settings in ({"kl": -1.0}, {"cap": 0.5}):
        with pytest.raises(UsageError, match="at least"):
            PolicyLoss(Clip(), TokenMean(), **settings)
    for low, high in ((0.0, 0.2), (1.0, 0.2), (0.2, 0.0)):
        with pytest.raises(UsageError, match="low="):
            Clip(low, high)
        with pytest.raises(UsageError, match="low="):
            SequenceClip(low, high)
    with pytest.raises(UsageError, match="high="):
        ClippedWeight(0.5)
    with pytest.raises(UsageError, match="limit="):
        PerTextSum(0)


def test_methods_are_what_their_papers_say() -> None:
    methods = {name: make(LIMIT) for name, make in METHODS.items()}
    assert methods["dr_grpo"] == Method(Clip(0.2, 0.28), PerTextSum(LIMIT))
    assert methods["grpo"].scale == "group" and methods["grpo"].kl > 0
    assert methods["dapo"].drop and methods["dapo"].surrogate == Clip(0.2, 0.28)
    assert replace(methods["bnpo"], aggregate=PerText(), kl=0.04) == methods["grpo"]
