"""KL of one block at a time equals really swapping the block, and leaves both models untouched."""

from __future__ import annotations

import copy

import pytest
from tests import tiny

from featherweight.base.errors import UsageError
from featherweight.evaluation import KL, block_kl, evaluate, predicted_by_block, with_block_kl


@pytest.mark.parametrize("make", tiny.ALL, ids=lambda make: make.__name__)
def test_equals_evaluating_the_original_with_the_block_swapped(make, windows):
    original = make()[0]
    light = copy.deepcopy(original)
    for p in light.parameters():
        if p.ndim == 2:
            p.data += 0.1 * p.std() * p.roll(1, 0).sign()
    found = block_kl(original, light, windows, budget_seconds=1e9)
    for i, name in enumerate(found):
        mixed = copy.deepcopy(original)
        mixed.model.layers[i] = light.model.layers[i]
        expected = evaluate(mixed, [KL(original, windows)]).quality["kl"]["mean"]
        assert found[name] == pytest.approx(expected, rel=1e-6) and expected > 0


def test_the_original_itself_has_no_blame(original, windows):
    assert set(block_kl(original, copy.deepcopy(original), windows, 1e9).values()) == {0.0}


def test_restores_forwards_and_modes_even_when_a_block_fails(original, light, windows):
    before = [dict(vars(m)) for m in original.modules()]
    broken = copy.deepcopy(light)
    broken.model.layers[1].mlp.down_proj.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        block_kl(original, broken, windows, 1e9)
    block_kl(original, light, windows, 1e9)
    assert [set(vars(m)) for m in original.modules()] == [set(b) for b in before]
    assert all("forward" not in vars(m) and not m._forward_hooks for m in original.modules())


def test_worst_predicted_first_and_none_where_time_ran_out(original, light, windows):
    order = []
    predicted = {"model.layers.1": 5.0, "model.layers.0": 1.0}
    block_kl(original, light, windows, 1e9, predicted, lambda e: order.append(e.message))
    assert order == ["model.layers.1", "model.layers.0", ""]
    assert block_kl(original, light, windows, 0.0) == {
        "model.layers.0": None,
        "model.layers.1": None,
    }


def test_blocks_must_match(original, windows):
    shorter = copy.deepcopy(original)
    del shorter.model.layers[1]
    with pytest.raises(
        UsageError, match="2 blocks.*model.layers.0 .. model.layers.1.*light model 1"
    ):
        block_kl(original, shorter, windows, 1.0)


def test_records_get_the_kl_of_their_block():
    layers = [
        {"name": "m.layers.1.q", "error_weighted": 0.5},
        {"name": "m.layers.10.q", "error_weighted": 2.0},
    ]
    layers.append({"name": "lm_head", "error_weighted": None})
    found = with_block_kl(layers, {"m.layers.1": 0.25, "m.layers.10": None})
    assert [layer["kl_block"] for layer in found] == [0.25, None, None]
    assert "kl_block" not in layers[0]
    names = ["m.layers.1", "m.layers.10"]
    assert predicted_by_block(layers, names) == {"m.layers.1": 0.5, "m.layers.10": 2.0}
    layers[0]["predicted_kl"] = 3.0
    assert predicted_by_block(layers, names) == {"m.layers.1": 3.0, "m.layers.10": 0.0}
