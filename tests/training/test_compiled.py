"""Compiled models train the same, under the same names, also where a loss hooks into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from toy import Toy

from featherweight.base.run_folder import RunFolder
from featherweight.training import Constant, Loss, checkpoint_files, steps
from featherweight.training.losses import CrossEntropy, ForwardKL, HiddenMSE, TokenLoss
from featherweight.training.state import StateFile

# torch warns about its own look at the gradient of a tensor, and makes it an error of its own.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")
# Autograd and tracing as in any backend, without a C++ compiler.
BACKEND = "aot_eager"


def square_loss(model: nn.Module, batch: Tensor) -> Loss:
    return Loss((model(batch) - batch.sum(-1, keepdim=True)).square().sum(), len(batch))


def train(
    model: Any, loss: Any, batches: list[Tensor], run: RunFolder | None = None
) -> list[float]:
    optimizer = SGD(model.parameters(), lr=0.1)
    schedule = Constant(len(batches))
    return [s.loss for s in steps(model, batches, loss, optimizer, schedule, run, bf16=False)]


def test_a_compiled_model(tmp_path: Path) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    batches = list(torch.randn(4, 5, 3))
    compiled = model()
    compiled.compile(backend=BACKEND)
    with RunFolder(tmp_path / "out", {}) as run:
        losses = train(compiled, square_loss, batches, run)
        names = StateFile(checkpoint_files(run)[-1]).names()
    assert losses == pytest.approx(train(model(), square_loss, batches), rel=1e-5)
    assert "model/0.weight" in names


@pytest.mark.parametrize("whole", [True, False])
def test_losses_of_tokens_see_a_compiled_model(whole: bool) -> None:
    """Compiled as a whole, or block by block."""
    torch._dynamo.reset()
    compiled = Toy(vocab=11, width=6)
    for module in (compiled,) if whole else compiled.layers:
        module.compile(backend=BACKEND)
    batches = list(torch.randint(0, 11, (3, 2, 8)))
    losses = []
    for model in (compiled, Toy(vocab=11, width=6)):
        teacher = Toy(vocab=11, width=6, seed=1)
        loss = TokenLoss(CrossEntropy(), ForwardKL(), HiddenMSE(), teacher=teacher)
        losses.append(train(model, loss, batches))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
