"""Muon equals its formula by a singular value decomposition, and torch's Muon."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from featherweight.base.errors import UsageError
from featherweight.base.run_folder import RunFolder
from featherweight.training import Constant, Loss, Muon, split, steps
from featherweight.training.muon import COEFFICIENTS, orthogonalize


def iterated(values: Tensor, count: int) -> Tensor:
    """The iteration on singular values alone."""
    a, b, c = COEFFICIENTS
    for _ in range(count):
        values = a * values + b * values**3 + c * values**5
    return values


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 5)])
def test_newton_schulz_keeps_singular_vectors(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape)
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    expected = u @ torch.diag(iterated(s / s.norm(), 5)) @ vt
    torch.testing.assert_close(orthogonalize(matrix).double(), expected, rtol=1e-3, atol=1e-4)


def test_singular_values_come_near_one() -> None:
    s = torch.linalg.svdvals(orthogonalize(torch.randn(16, 64)))
    assert 0.6 < s.min() <= s.max() < 1.3


@pytest.mark.parametrize("scaling", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(8, 5), (5, 8)])
def test_muon_equals_torch(scaling: str, nesterov: bool, shape: tuple[int, int]) -> None:
    """torch computes the iteration in bfloat16, hence the tolerance."""
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    muon = Muon([ours], 0.1, 0.2, 0.9, nesterov, scaling=scaling)
    rival = torch.optim.Muon(
        [theirs], 0.1, 0.2, momentum=0.9, nesterov=nesterov, adjust_lr_fn=scaling
    )
    for _ in range(4):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        rival.step()
    assert (ours - start).abs().max() > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.02)


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(UsageError, match="not for a parameter of shape \\(3,\\)"):
        Muon([nn.Parameter(torch.zeros(3))])
    with pytest.raises(UsageError, match="scaling='rms'"):
        Muon([nn.Parameter(torch.zeros(3, 3))], scaling="rms")


def square_loss(model: nn.Module, batch: Tensor) -> Loss:
    return Loss((model(batch) - batch.sum(-1, keepdim=True)).square().sum(), len(batch))


def train(run: RunFolder | None, stop: int) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    matrices, others = split(model, is_first=lambda name, p: name == "0.weight")
    optimizers = [Muon(matrices, lr=0.02), AdamW(others, lr=1e-2)]
    batches = list(torch.randn(30, 8, 3, generator=torch.Generator().manual_seed(1)))
    losses = []
    for step in steps(model, batches, square_loss, optimizers, Constant(30), run, save_every=10):
        losses.append(step.loss)
        if step.number == stop:
            break
    return model, losses


def test_two_optimizers_learn_and_resume(tmp_path: Path) -> None:
    straight, losses = train(None, 30)
    assert losses[-1] < 0.5 * losses[0]
    with RunFolder(tmp_path / "out", {}) as run:
        train(run, 15)
    with RunFolder(tmp_path / "out", {}) as run:
        resumed, rest = train(run, 30)
    assert rest == losses[10:]
    for a, b in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(a, b)
