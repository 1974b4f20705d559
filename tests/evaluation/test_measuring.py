"""`evaluate` equals naive loops and the independent judge's formula, shares forwards, and reads 0
of itself.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tests import tiny

from featherweight.base.errors import BadInput, UsageError
from featherweight.evaluation import KL, Perplexity, evaluate


def naive(original, light, windows):
    """What the judge does, in float64:

    KL, both losses and agreement of every token, token by token.
    """
    kl, before, after, agree = [], [], [], []
    with torch.no_grad():
        for window in windows:
            p_all = original(window[None, :-1]).logits[0].double().softmax(-1)
            q_all = light(window[None, :-1]).logits[0].double().softmax(-1)
            for p, q, target in zip(p_all, q_all, window[1:], strict=True):
                kl.append(
                    float(
                        sum(
                            a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True)
                        )
                    )
                )
                before.append(-math.log(p[target]))
                after.append(-math.log(q[target]))
                agree.append(bool(p.argmax() == q.argmax()))
    return [np.array(x).reshape(len(windows), -1) for x in (kl, before, after, agree)]


def test_every_token_equals_the_naive_loop(original, light, windows):
    kl, before, after, agree = naive(original, light, windows)
    scores = evaluate(light, [KL(original, windows)]).scores
    np.testing.assert_allclose(scores.kl, kl, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(scores.original_loss, before, rtol=1e-5)
    np.testing.assert_allclose(scores.loss, after, rtol=1e-5)
    np.testing.assert_array_equal(scores.agree, agree)


def test_summaries_equal_the_naive_loop(original, light, windows):
    kl, before, after, agree = naive(original, light, windows)
    quality = evaluate(
        light, [Perplexity(windows, "noise"), KL(original, windows, "noise")]
    ).quality
    assert quality["kl"]["mean"] == pytest.approx(kl.mean(), rel=1e-4)
    assert quality["kl"]["median"] == pytest.approx(np.median(kl), rel=1e-3)
    assert quality["kl"]["p99"] == pytest.approx(np.quantile(kl, 0.99), rel=1e-3)
    assert quality["kl"]["p999"] == pytest.approx(np.quantile(kl, 0.999), rel=1e-3)
    assert quality["kl_windows"] == pytest.approx(kl.mean(1).tolist(), rel=1e-4)
    assert quality["top1"]["mean"] == agree.mean()
    assert quality["light"]["perplexity"]["mean"] == pytest.approx(math.exp(after.mean()), rel=1e-5)
    assert quality["original"]["perplexity"]["mean"] == pytest.approx(
        math.exp(before.mean()), rel=1e-5
    )
    assert quality["perplexity_ratio"]["mean"] == pytest.approx(
        math.exp(after.mean() - before.mean()), rel=1e-5
    )
    for interval in (
        quality["kl"],
        quality["top1"],
        quality["light"]["perplexity"],
        quality["perplexity_ratio"],
    ):
        assert interval["low"] <= interval["mean"] <= interval["high"]
    assert quality["text"] == {
        "name": "noise",
        "windows": 5,
        "length": 33,
        "tokens": 165,
        "bos": False,
        "first_ids": windows[0, :16].tolist(),
    }
    assert json.loads(json.dumps(quality, allow_nan=False)) == quality


def test_agrees_with_the_judge(original, light, windows):
    """The independent judge rounds the reference to float16 and sums whole windows; 1 % is its own
    tolerance.
    """
    kl = 0.0
    with torch.no_grad():
        for w in windows:
            lp = torch.log_softmax(light(w[None, :-1]).logits[0].float(), -1)
            lr = torch.log_softmax(original(w[None, :-1]).logits[0].half().float(), -1)
            kl += (lr.exp() * (lr - lp)).sum().item()
    assert evaluate(light, [KL(original, windows)]).quality["kl"]["mean"] == pytest.approx(
        kl / 165, rel=0.01
    )


@pytest.mark.parametrize("make", tiny.ALL, ids=lambda make: make.__name__)
def test_of_itself_it_reads_exactly_zero(make, windows):
    model = make()[0]
    quality = evaluate(model, [KL(model, windows), Perplexity(windows)]).quality
    assert set(quality["kl"]) == {"mean", "low", "high", "median", "p99", "p999"}
    assert set(quality["kl"].values()) == {0.0}
    assert quality["kl_windows"] == [0.0] * 5
    assert quality["top1"]["mean"] == 1.0 and quality["perplexity_ratio"]["mean"] == 1.0


def test_of_a_second_copy_it_reads_exactly_zero_too(windows):
    quality = evaluate(tiny.llama()[0], [KL(tiny.llama()[0], windows)]).quality
    assert quality["kl"]["mean"] == 0.0


def test_each_model_reads_each_window_once(original, light, windows):
    counts = {"original": 0, "light": 0}
    hooks = []
    for name, model in (("original", original), ("light", light)):
        hooks.append(
            model.register_forward_hook(
                lambda *a, name=name: counts.update({name: counts[name] + 1})
            )
        )
    try:
        evaluate(light, [Perplexity(windows), KL(original, windows.clone()), Perplexity(windows)])
    finally:
        for hook in hooks:
            hook.remove()
    assert counts == {"original": 5, "light": 5}


def test_perplexity_alone_needs_no_original(light, windows):
    quality = evaluate(light, [Perplexity(windows)]).quality
    assert (
        set(quality["light"]) == {"perplexity"}
        and "original" not in quality
        and "kl" not in quality
    )


def test_further_texts_come_as_others_and_progress_is_reported(original, light, windows):
    events = []
    other = windows.flip(0)[:2]
    metrics = [KL(original, windows, "a"), KL(original, other, "b"), Perplexity(other, "b")]
    quality = evaluate(light, metrics, events.append).quality
    assert quality["text"]["name"] == "a" and "light" not in quality
    (second,) = quality["others"]
    assert second["text"]["windows"] == 2 and {"kl", "light", "original"} <= set(second)
    assert [e.done for e in events] == list(range(8)) and all(e.total == 7 for e in events)


def test_two_originals_are_told_apart(original, light, windows):
    quality = evaluate(light, [KL(light, windows), Perplexity(windows)]).quality
    both = evaluate(light, [KL(light, windows), KL(original, windows)]).quality
    assert quality["kl"]["mean"] == 0.0 and both["kl"]["mean"] > 0.01


def test_half_precision_logits_are_normalised_in_float32(original, windows):
    half = tiny.llama()[0].bfloat16()
    quality = evaluate(half, [KL(half, windows), Perplexity(windows)]).quality
    assert quality["kl"]["mean"] == 0.0
    exact = evaluate(original, [Perplexity(windows)]).quality
    assert quality["light"]["perplexity"]["mean"] == pytest.approx(
        exact["light"]["perplexity"]["mean"], rel=0.05
    )


def test_models_are_left_as_they_were(original, light, windows):
    light.train()
    light.model.norm.eval()
    try:
        evaluate(light, [KL(original, windows)])
        assert light.training and not light.model.norm.training and not original.training
        assert torch.is_grad_enabled()
        assert all(not m._forward_hooks for m in light.modules())
    finally:
        light.eval()


def test_non_finite_numbers_are_refused_by_name(light, original, windows):
    broken = tiny.llama()[0]
    with torch.no_grad():
        broken.model.norm.weight[0] = math.nan
    with pytest.raises(BadInput, match="the model gives non-finite numbers in window 0 of noise"):
        evaluate(broken, [Perplexity(windows, "noise")])
    with pytest.raises(BadInput, match="the original gives"):
        evaluate(light, [KL(broken, windows)])


def test_what_cannot_be_measured_is_refused(light, windows):
    with pytest.raises(UsageError, match="at least one metric"):
        evaluate(light, [])
    with pytest.raises(UsageError, match="shape"):
        Perplexity(windows[:, :1])
    with pytest.raises(UsageError, match="shape"):
        KL(light, windows[:0])
    smaller = tiny.llama()[0]
    smaller.resize_token_embeddings(290)
    with pytest.raises(UsageError, match="300.*290"):
        evaluate(smaller, [KL(light, windows.clamp(max=280))])


def test_whether_windows_start_with_a_bos_is_recorded(light, windows):
    same_first = windows.clone()
    same_first[:, 0] = 1

    def recorded(tokens, bos):
        return evaluate(light, [Perplexity(tokens, bos=bos)]).quality["text"]["bos"]

    assert recorded(same_first, True) is True
    assert recorded(same_first, None) is None
    assert recorded(windows, None) is False
    assert recorded(windows[:1], False) is False
