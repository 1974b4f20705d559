"""The curves of the schedules at their corners, and which parameters decay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from featherweight.base.errors import UsageError
from featherweight.training import (
    WSD,
    Constant,
    Cosine,
    Schedule,
    TwoStage,
    parameter_groups,
    split,
    trainable,
)


def curve(schedule: Schedule) -> list[float]:
    return [schedule.lr(step) for step in range(schedule.steps)]


def test_constant() -> None:
    assert curve(Constant(4, warmup=2)) == [0.5, 1, 1, 1]


def test_cosine() -> None:
    rates = curve(Cosine(103, warmup=2, floor=0.1))
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[52] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[2:] == sorted(rates[2:], reverse=True)


@pytest.mark.parametrize(
    ("shape", "middle"), [("linear", 0.5), ("1-sqrt", 1 - math.sqrt(0.5)), ("cosine", 0.5)]
)
def test_wsd(shape: str, middle: float) -> None:
    rates = curve(WSD(100, warmup=4, decay=21, shape=shape))
    assert rates[:4] == [0.25, 0.5, 0.75, 1]
    assert set(rates[4:80]) == {1.0}
    assert rates[89] == pytest.approx(middle)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_two_stages_of_bitnet() -> None:
    """1.5e-3 to 8e-4, then 5e-4 to 0; the weight decay ends at the drop."""
    schedule = TwoStage(1000, warmup=10)
    rates = [1.5e-3 * rate for rate in curve(schedule)]
    assert max(rates) == pytest.approx(1.5e-3, rel=0.02)
    assert rates[499] == pytest.approx(8e-4)
    assert rates[500] == pytest.approx(5e-4)
    assert rates[-1] == 0
    assert [schedule.weight_decay(step) for step in (0, 499, 500, 999)] == [1, 1, 0, 0]


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(UsageError, match="10 steps cannot hold 11 steps"):
        WSD(10, warmup=5, decay=6)
    with pytest.raises(UsageError, match="shape='cubic'"):
        WSD(10, shape="cubic")
    with pytest.raises(UsageError, match="middle"):
        TwoStage(1000, middle=1.0)


class Quantized(nn.Module):
    """A layer with matrices of scales, as quantizers of column groups have them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))
        self.scales = nn.Parameter(torch.ones(4, 2))
        self.zero_points = nn.Parameter(torch.ones(4, 2))
        self.alpha = nn.Parameter(torch.ones(4, 1))


def test_param_groups() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), Quantized(), nn.Conv2d(1, 2, 3))
    decay, others = parameter_groups(model, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [names[id(p)] for p in decay["params"]] == ["0.weight", "2.weight", "3.weight"]
    assert (decay["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert len(others["params"]) == len(list(model.parameters())) - 3
    decay, _ = parameter_groups(model, weight_decay=0.1, no_decay=["3.*"])
    assert [names[id(p)] for p in decay["params"]] == ["0.weight", "2.weight"]
    with pytest.raises(UsageError, match="matches 'head.*'"):
        parameter_groups(model, weight_decay=0.1, no_decay=["head.*"])


def test_frozen_parameters_are_in_no_group() -> None:
    model = nn.Linear(4, 4)
    model.weight.requires_grad_(False)
    (group,) = parameter_groups(model, weight_decay=0.1)
    assert [p.shape for p in group["params"]] == [(4,)]
    model.bias.requires_grad_(False)
    with pytest.raises(UsageError, match="nothing to train"):
        trainable(model)


def test_split() -> None:
    model = nn.Linear(4, 4)
    matrices, others = split(model, is_first=lambda name, p: p.ndim == 2)
    assert matrices[0] is model.weight
    assert others[0] is model.bias
