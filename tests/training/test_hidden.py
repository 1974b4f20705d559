"""Hidden states and relations: slow twins, maps of layers and channels, and the scale of the
relation term.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny
import torch
from token_batches import batch, counted, gradients, student, teacher
from torch import Tensor
from torch.optim import AdamW

from featherweight.base.errors import UsageError
from featherweight.training import Constant, parameter_groups, steps
from featherweight.training.losses import (
    CrossEntropy,
    HiddenCosine,
    HiddenMSE,
    RelationKL,
    TokenLoss,
    uniform_layers,
)


def states(model: Any, inputs: dict[str, Tensor], module: str) -> Tensor:
    """Outputs of a module, (B, T, width)."""
    outputs: list[Tensor] = []
    handle = model.get_submodule(module).register_forward_hook(
        lambda m, a, output: outputs.append(output[0] if isinstance(output, tuple) else output)
    )
    model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    handle.remove()
    return outputs[0]


def mse(s: list[float], t: list[float]) -> float:
    mean = sum(t) / len(t)
    variance = sum((x - mean) ** 2 for x in t) / len(t)
    return sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(t) / variance


def cosine_distance(s: list[float], t: list[float]) -> float:
    dot = sum(a * b for a, b in zip(s, t, strict=True))
    return 1 - dot / math.sqrt(sum(a * a for a in s) * sum(b * b for b in t))


@pytest.mark.parametrize(("term", "twin"), [(HiddenMSE, mse), (HiddenCosine, cosine_distance)])
def test_hidden_states_equal_a_slow_twin(term: Any, twin: Any) -> None:
    model, original, inputs = student(), teacher(), batch()
    channels, without = list(range(63, -1, -1)), (5, 60)
    loss = TokenLoss(term({0: 1, -1: 0}, channels=channels, without=without), teacher=original)(
        model, inputs
    )
    expected = 0.0
    with torch.no_grad():
        for layer, teacher_layer in ((0, 1), (1, 0)):
            s = states(model, inputs, f"model.layers.{layer}").double()
            t = states(original, inputs, f"model.layers.{teacher_layer}").double()
            for b, i in counted(inputs):
                columns = [c for c in range(64) if c not in without]
                row = [t[b, i, channels[c]].item() for c in columns]
                expected += twin([s[b, i, c].item() for c in columns], row) / 2
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)
    assert any(g.any() for g in gradients(model, loss.total))


def test_layers_are_spread_evenly() -> None:
    assert uniform_layers(15, 30) == {i: 2 * i + 1 for i in range(15)}
    assert uniform_layers(3, 4) == {0: 0, 1: 2, 2: 3}
    assert uniform_layers(2, 2) == {0: 0, 1: 1}
    model, inputs = student(), batch()
    pairs = TokenLoss(HiddenMSE({0: 0, 1: 1}), teacher=teacher())(model, inputs)
    default = TokenLoss(HiddenMSE(), teacher=teacher())(model, inputs)
    assert pairs.total.item() == default.total.item()
    with pytest.raises(UsageError, match="no block 2 among 2"):
        TokenLoss(HiddenMSE({2: 0}), teacher=teacher())(model, inputs)


def test_other_widths_need_a_map() -> None:
    model, wide, inputs = student(), tiny.qwen3(1)[0], batch()
    with pytest.raises(UsageError, match="width 64, the teacher's 96"):
        TokenLoss(HiddenMSE({1: 1}), teacher=wide)(model, inputs)
    kept = TokenLoss(HiddenMSE({1: 1}, channels=range(64)), teacher=wide)(model, inputs)
    assert kept.total.isfinite()
    with pytest.raises(UsageError, match="needs `layers`"):
        HiddenMSE(learned=(64, 96))


def test_a_learned_map_trains_with_the_model() -> None:
    model, wide, inputs = student(), tiny.qwen3(1)[0], batch()
    loss = TokenLoss(HiddenMSE({1: 1}, learned=(64, 96)), teacher=wide)
    matrix = loss.get_parameter("terms.hidden_mse.maps.1.weight")
    assert torch.equal(matrix, torch.eye(96, 64))
    optimizer = AdamW(parameter_groups(model, loss, weight_decay=0), lr=3e-3)
    rows = list(steps(model, [inputs] * 20, loss, optimizer, Constant(20), bf16=False))
    assert rows[-1].loss < 0.7 * rows[0].loss
    assert not torch.equal(matrix, torch.eye(96, 64))


def relation_twin(
    s: Tensor, t: Tensor, inputs: dict[str, Tensor], groups: int, temperature: float
) -> float:
    """Row by row, with loops over groups, rows and columns."""

    def distribution(x: Tensor, b: int, i: int, group: int) -> list[float]:
        width = x.shape[-1] // groups
        part = x[b, :, group * width : (group + 1) * width]
        part = part / part.norm(dim=-1, keepdim=True)
        columns = [j for j in range(x.shape[1]) if inputs["attention_mask"][b, j]]
        weights = [math.exp(float(part[i] @ part[j]) / temperature) for j in columns]
        return [weight / sum(weights) for weight in weights]

    total = 0.0
    for b, i in counted(inputs):
        for group in range(groups):
            p, q = distribution(t, b, i, group), distribution(s, b, i, group)
            total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)) / groups
    return total


def test_relation_kl_scale() -> None:
    """Divided by the number of groups once; L2-normalised, so it is small."""
    model, original, inputs = student(), teacher(), batch()
    term = RelationKL(layer=-1, teacher_layer=0, groups=8, temperature=0.5)
    loss = TokenLoss(term, teacher=original)(model, inputs)
    expected = 0.0
    with torch.no_grad():
        for name in ("q_proj", "k_proj", "v_proj"):
            s = states(model, inputs, f"model.layers.1.self_attn.{name}").double()
            t = states(original, inputs, f"model.layers.0.self_attn.{name}").double()
            expected += relation_twin(s, t, inputs, 8, 0.5)
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)
    assert any(g.any() for g in gradients(model, loss.total))
    same = TokenLoss(RelationKL(layer=1, groups=8), teacher=student())(model, inputs)
    assert same.total.item() == pytest.approx(0, abs=1e-5)


def test_gamma_by_grad_norm() -> None:
    """A weight is chosen by the norms of gradients: scaled by their ratio, both are equal."""
    model, inputs = student(), batch()
    relation = RelationKL(layer=-1, groups=8)
    loss = TokenLoss(CrossEntropy(), relation, teacher=teacher())
    norms = loss.gradient_norms(model, inputs)
    assert norms["relation_kl"] < norms["cross_entropy"]
    relation.weight = norms["cross_entropy"] / norms["relation_kl"]
    norms = loss.gradient_norms(model, inputs)
    assert norms["relation_kl"] == pytest.approx(norms["cross_entropy"], rel=1e-4)


def test_wrong_relations_are_refused() -> None:
    model, inputs = student(), batch()
    with pytest.raises(UsageError, match="7 groups do not divide a projection of width 64"):
        TokenLoss(RelationKL(layer=0, groups=7), teacher=teacher())(model, inputs)
    with pytest.raises(UsageError, match="there is no model.layers.0.attn.qkv"):
        TokenLoss(RelationKL(0, projections=["attn.qkv"]), teacher=teacher())(model, inputs)
    logits = torch.zeros(3, 9, 300)
    with pytest.raises(UsageError, match="relation_kl needs a teacher$"):
        TokenLoss(RelationKL(layer=0))(model, inputs | {"teacher_logits": logits})


def test_a_sequence_of_padding_gives_no_nan() -> None:
    model, inputs = student(), batch()
    inputs["attention_mask"][1] = 0
    loss = TokenLoss(RelationKL(layer=0, groups=8), teacher=teacher())(model, inputs)
    assert loss.total.isfinite()
    assert all(g.isfinite().all() for g in gradients(model, loss.total))
