"""The gate on a whole model: what helps passes, what was planted is refused, and nothing else
changes.
"""

from __future__ import annotations

from dataclasses import replace

import tiny
import torch

from featherweight.models.anatomy import Anatomy
from featherweight.quantization.curvature import FisherA
from featherweight.quantization.formats import Int
from featherweight.quantization.gating import judge
from featherweight.quantization.pipeline import plan_layers
from featherweight.quantization.plans import Plan
from featherweight.quantization.rounding import LDLQ, YAQA
from featherweight.quantization.transforms import Hadamard

PLANTED = "model.layers.1.mlp.down_proj"


def test_the_gate_refuses_a_planted_factor_and_no_other() -> None:
    model, _ = tiny.llama()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 300, (64, 24), generator=generator)
    known = FisherA(batch=16).collect(model, tokens[:48])
    layer_plans = list(
        plan_layers(Anatomy.of(model), Plan({"*layers*": Int(bits=3, group=32), "*": None}))
    )
    honest = judge(model, tokens[48:], lambda name: known[name], layer_plans, YAQA(), Hadamard())
    assert set(honest) == {layer_plan.name for layer_plan in layer_plans}
    assert honest[PLANTED]["two_sided"] and honest[PLANTED]["ratio"] < 1
    noise = torch.randn(2, known[PLANTED].output.shape[0], generator=generator)  # type: ignore[union-attr]
    spoilt = {**known, PLANTED: replace(known[PLANTED], output=noise.T @ noise)}
    judged = judge(model, tokens[48:], lambda name: spoilt[name], layer_plans, YAQA(), Hadamard())
    assert not judged[PLANTED]["two_sided"] and judged[PLANTED]["ratio"] > 1.1
    assert all(judged[name] == honest[name] for name in honest if name != PLANTED)


def test_nothing_is_judged_without_an_output_side() -> None:
    model, _ = tiny.llama()
    tokens = torch.randint(3, 300, (8, 16), generator=torch.Generator().manual_seed(0))
    known = FisherA(batch=8).collect(model, tokens)
    layer_plans = list(
        plan_layers(Anatomy.of(model), Plan({"*layers*": Int(bits=3, group=32), "*": None}))
    )
    assert judge(model, tokens, lambda name: known[name], layer_plans, LDLQ(), Hadamard()) == {}
