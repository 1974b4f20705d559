"""Curvature against enumeration, against measured KL, and against itself computed otherwise."""

from __future__ import annotations

import itertools

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy import Toy

from featherweight.base.events import silent
from featherweight.models.observe import observe, sites
from featherweight.quantization.curvature import FisherA, FisherB, Gram
from featherweight.quantization.curvature.base import Curvature, Sums
from featherweight.quantization.curvature.fisher import LabelSampler
from featherweight.quantization.curvature.fisher_b import Probe, probed_products, sequence_products
from featherweight.quantization.curvature.gates import expected_loss
from featherweight.quantization.curvature.gram import input_sites
from featherweight.quantization.curvature.storage import Snapshot, save
from featherweight.quantization.rounding.base import block_ldl


def gradient(model: Toy, name: str, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    weight = model.get_submodule(name).weight
    loss = nn.functional.cross_entropy(model(tokens[None]).logits[0], labels, reduction="sum")
    return torch.autograd.grad(loss, weight)[0]


def test_fisher_exact_on_toy() -> None:
    """Expectation over all labels of all positions, weighted by the model's own probabilities."""
    model, tokens = Toy(), torch.tensor([0, 2, 1])
    name = "layers.0.down"
    p = torch.softmax(model(tokens[None]).logits[0].detach(), -1)
    h_in, h_out, squares = torch.zeros(8, 8), torch.zeros(4, 4), 0.0
    for labels in itertools.product(range(3), repeat=3):
        chance = float(torch.stack([p[t, label] for t, label in enumerate(labels)]).prod())
        g = gradient(model, name, tokens, torch.tensor(labels))
        h_in += chance * g.T @ g / 4
        h_out += chance * g @ g.T / 8
        squares += chance * float(g.square().sum())
    draws = 6000
    sums = Sums()
    FisherB(probes=None, batch=1000).accumulate(
        model, tokens.repeat(draws, 1), range(draws), sums, silent
    )
    found = FisherB().factors(sums, name)
    scale = squares / float(h_in.trace() * h_out.trace())
    assert torch.allclose(found.input, h_in, rtol=0.1, atol=0.03 * float(h_in.abs().max()))
    assert torch.allclose(found.output, h_out, rtol=0.1, atol=0.03 * float(h_out.abs().max()))
    assert found.scale == pytest.approx(scale, rel=0.05)
    assert (found.tokens, found.sequences) == (3 * draws, draws)


def test_token_fisher_exact_on_toy() -> None:
    """FisherA against the enumeration of every label of every position."""
    model, tokens = Toy(), torch.tensor([0, 2, 1])
    name = "layers.0.down"
    seen: list[torch.Tensor] = []
    observe(model, tokens[None], sites(model, "input", name), lambda site, x, g: seen.append(x[0]))
    x, p = seen[0], torch.softmax(model(tokens[None]).logits[0].detach(), -1)
    h_in, h_out, squares = torch.zeros(8, 8), torch.zeros(4, 4), 0.0
    for labels in itertools.product(range(3), repeat=3):
        chance = float(torch.stack([p[t, label] for t, label in enumerate(labels)]).prod())
        whole = gradient(model, name, tokens, torch.tensor(labels))
        g = torch.linalg.lstsq(x.T, whole.T).solution
        for t in range(3):
            h_in += chance * g[t].square().sum() * torch.outer(x[t], x[t]) / 4 / 3
            h_out += chance * x[t].square().sum() * torch.outer(g[t], g[t]) / 8 / 3
        squares += chance * float(whole.square().sum())
    draws = 6000
    found = FisherA(batch=1000).collect(model, tokens.repeat(draws, 1))[name]
    assert torch.allclose(found.input, h_in, rtol=0.1, atol=0.03 * float(h_in.abs().max()))
    assert torch.allclose(found.output, h_out, rtol=0.1, atol=0.03 * float(h_out.abs().max()))
    assert found.scale == pytest.approx(squares / float(h_in.trace() * h_out.trace()), rel=0.05)
    assert (found.tokens, found.sequences) == (3 * draws, draws)


@pytest.mark.parametrize("method", [FisherA(batch=16), FisherB(probes=None, batch=16)])
def test_predicted_kl_matches_measured(method: FisherA | FisherB) -> None:
    """Over isotropic perturbations of one layer, 1/2 c tr(H_O D H_I D^T) is the KL a sequence."""
    model = Toy(vocab=7, width=6, seed=1)
    tokens = torch.randint(0, 7, (64, 10), generator=torch.Generator().manual_seed(2))
    name = "layers.1.up"
    f = method.collect(model, tokens.repeat(8, 1))[name]
    weight = model.get_submodule(name).weight
    before = torch.log_softmax(model(tokens).logits.detach(), -1)
    measured, predicted = 0.0, 0.0
    for seed in range(20):
        d = 0.003 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        weight.data += d
        after = torch.log_softmax(model(tokens).logits.detach(), -1)
        weight.data -= d
        measured += float((before.exp() * (before - after)).sum() / len(tokens))
        predicted += 0.5 * f.scale * float(((d @ f.input) * (f.output @ d)).sum())
    assert 0.8 < predicted / measured < 1.25


def test_dual_equals_primal() -> None:
    x, g = torch.randn(3, 7, 10), torch.randn(3, 7, 6)
    (a, b), (c, d), squares = sequence_products(x, g, "dual")
    (e, f), (h, i), other = sequence_products(x, g, "primal")
    assert torch.allclose(a.T @ b, e.T @ f, atol=1e-3)
    assert torch.allclose(c.T @ d, h.T @ i, atol=1e-3)
    assert squares == pytest.approx(other, rel=1e-5)


def test_probes_are_unbiased() -> None:
    x, g = torch.randn(1, 5, 6), torch.randn(1, 5, 4)
    (a, b), (c, d), squares = sequence_products(x, g)
    total_in, total_out, total = torch.zeros(6, 6), torch.zeros(4, 4), 0.0
    rounds = 4000
    for seed in range(rounds):
        (e, f), (h, i), s = probed_products(x, g, Probe(seed, [0], 8))
        total_in += e.T @ f / rounds
        total_out += h.T @ i / rounds
        total += s / rounds
    assert torch.allclose(total_in, a.T @ b, atol=0.05 * float((a.T @ b).abs().max()))
    assert torch.allclose(total_out, c.T @ d, atol=0.05 * float((c.T @ d).abs().max()))
    assert total == pytest.approx(squares, rel=0.05)


@pytest.mark.parametrize("method", [FisherA, FisherB])
def test_keeps_sequences_apart_and_batches_change_nothing(
    method: type[FisherA] | type[FisherB],
) -> None:
    model = Toy(vocab=7, width=6)
    tokens = torch.randint(0, 7, (6, 5))
    one = method(batch=1).collect(model, tokens)
    many = method(batch=6).collect(model, tokens)
    for name in one:
        assert torch.allclose(one[name].input, many[name].input, rtol=1e-4, atol=1e-6)
        if name == "lm_head":
            continue
        assert torch.allclose(one[name].output, many[name].output, rtol=1e-4, atol=1e-6)


def test_recomputed_blocks_give_the_same_factors() -> None:
    model = Toy(vocab=7, width=6).train()
    tokens = torch.randint(0, 7, (4, 5))
    kept = FisherB(keep_graphs=True).collect(model, tokens)
    again = FisherB(keep_graphs=False).collect(model, tokens)
    for name in kept:
        assert torch.equal(kept[name].input, again[name].input)
        assert name == "lm_head" or torch.equal(kept[name].output, again[name].output)
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_half_precision_blocks_are_widened_and_restored() -> None:
    model = Toy(vocab=7, width=6)
    wide = FisherB().collect(
        model, torch.randint(0, 7, (4, 5), generator=torch.Generator().manual_seed(0))
    )
    for layer in model.layers:
        layer.to(torch.bfloat16)
    tokens = torch.randint(0, 7, (4, 5), generator=torch.Generator().manual_seed(0))
    narrow = FisherB().collect(model, tokens)
    assert all(p.dtype == torch.bfloat16 for p in model.layers.parameters())
    name = "layers.0.down"
    assert torch.allclose(
        wide[name].gram, narrow[name].gram, rtol=0.05, atol=0.05 * float(wide[name].gram.max())
    )


def test_gram_is_the_second_moment_and_is_shared() -> None:
    model = Toy(vocab=7, width=6)
    tokens = torch.randint(0, 7, (5, 4))
    seen: dict[str, list[torch.Tensor]] = {}
    observe(
        model,
        tokens,
        input_sites(model),
        lambda site, x, g: seen.setdefault(site.name, []).append(x),
    )
    sums = Sums()
    Gram(batch=2).accumulate(model, tokens, range(5), sums, silent)
    for name, xs in seen.items():
        x = torch.cat(xs).reshape(-1, xs[0].shape[-1])
        assert torch.allclose(
            Gram().factors(sums, name).gram, x.T @ x / len(x), rtol=1e-4, atol=1e-6
        )
    assert sums.owners["layers.0.gate"] == sums.owners["layers.0.up"] == "layers.0.up"
    assert len([k for k in sums.matrices if k.startswith("gram/")]) == 5


@pytest.mark.parametrize(
    "method", [Gram(batch=2), FisherA(batch=2), FisherB(batch=3, keep_graphs=False)]
)
def test_of_the_head_every_method_collects_the_gram(method: Curvature) -> None:
    model = Toy(vocab=7, width=6)
    tokens = torch.randint(0, 7, (5, 4))
    hidden: list[torch.Tensor] = []
    handle = model.lm_head.register_forward_pre_hook(
        lambda module, args: hidden.append(args[0].flatten(0, 1))
    )
    with torch.no_grad():
        before = model(tokens).logits
    handle.remove()
    factors = method.collect(model, tokens)["lm_head"]
    torch.testing.assert_close(factors.gram, hidden[0].T @ hidden[0] / 20)
    assert factors.output is None and factors.fisher_input is None
    assert (factors.tokens, factors.sequences) == (20, 5)
    assert "forward" not in vars(model.lm_head) and not model.lm_head._forward_pre_hooks
    assert torch.equal(model(tokens).logits, before)


def test_snapshot_resumes_bit_for_bit(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = Toy(vocab=7, width=6)
    tokens = torch.randint(0, 7, (8, 5))
    method = FisherB(batch=2)
    straight = Sums()
    method.accumulate(model, tokens, range(4), straight, silent)
    save(straight, tmp_path / "half.safetensors")
    method.accumulate(model, tokens, range(4, 8), straight, silent)
    save(straight, tmp_path / "whole.safetensors")
    resumed = Snapshot(tmp_path / "half.safetensors").sums()
    method.accumulate(model, tokens, range(4, 8), resumed, silent)
    save(resumed, tmp_path / "again.safetensors")
    whole, again = (
        load_file(tmp_path / "whole.safetensors"),
        load_file(tmp_path / "again.safetensors"),
    )
    assert whole.keys() == again.keys() and all(
        torch.equal(whole[key], again[key]) for key in whole
    )
    loaded = Snapshot(tmp_path / "again.safetensors").factors(method, "layers.0.gate")
    assert torch.equal(loaded.output, method.factors(straight, "layers.0.gate").output)


def test_labels_come_from_the_model_and_from_the_seed() -> None:
    logits = torch.full((2, 400, 3), -20.0)
    logits[..., 0], logits[..., 1] = 0.0, 1.0
    gradient = LabelSampler(0, [0, 1])(logits)
    labels = (gradient - torch.softmax(logits, -1)).argmin(-1)
    share = (labels == 1).float().mean()
    assert abs(float(share) - 0.731) < 0.05
    assert torch.equal(gradient[1:], LabelSampler(0, [1])(logits[1:]))
    assert not torch.equal(gradient, LabelSampler(1, [0, 1])(logits))


def test_gate_rejects_bad_factor() -> None:
    """Gradients whose rows correlate: their own H_O lowers the expected loss, a planted noise H_O
    raises it.
    """
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(16, 16, generator=generator) * torch.logspace(0, -1.5, 16)
    x = torch.randn(64, 8, 32, generator=generator)
    g = torch.randn(64, 8, 16, generator=generator) @ mixing.T
    own = torch.einsum("bti,btj->ij", g, g) / 64
    noise = torch.randn(3, 16, generator=generator)
    planted = noise.T @ noise
    lower_in = torch.zeros(32, 32)
    scale = torch.ones(16)

    def loss(h: torch.Tensor | None) -> float:
        lower = None if h is None else block_ldl(h / h.diagonal().mean() + 0.01 * torch.eye(16), 4)
        return float(expected_loss(x, g, scale, lower_in, lower).mean())

    assert loss(own) < loss(None) < loss(planted)


def test_expected_loss_is_the_expectation() -> None:
    """Monte Carlo over the noise with the D that feedback makes of it."""
    x, g = torch.randn(2, 5, 8), torch.randn(2, 5, 6)
    h_i, h_o = torch.randn(20, 8), torch.randn(20, 6)
    l_i, l_o = block_ldl(h_i.T @ h_i, 2), block_ldl(h_o.T @ h_o, 2)
    scale = torch.linspace(0.5, 2.0, 6)
    eye_i, eye_o = torch.eye(8), torch.eye(6)
    gradients = g.transpose(1, 2) @ x
    noise = torch.randn(40_000, 6, 8) * scale[:, None]
    d = torch.linalg.inv(l_o + eye_o).T @ noise @ torch.linalg.inv(l_i + eye_i)
    measured = torch.einsum("smn,bmn->bs", d, gradients).square().mean(1)
    assert torch.allclose(expected_loss(x, g, scale, l_i, l_o), measured, rtol=0.05)
