"""Averages of weights equal their formulas, and shuffled batches are a function of their number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.run_folder import RunFolder
from featherweight.training import (
    EMA,
    Constant,
    Loss,
    ShuffledBatches,
    average_checkpoints,
    checkpoint_files,
    steps,
)


def square_loss(model: nn.Module, batch: Tensor) -> Loss:
    return Loss((model(batch) - batch.sum(-1, keepdim=True)).square().sum(), len(batch))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_checkpoints_are_averaged(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out", {}) as run:
        model = linear()
        optimizer = SGD(model.parameters(), lr=0.1)
        snapshots = []
        for row in steps(
            model,
            [torch.randn(2, 3)] * 6,
            square_loss,
            optimizer,
            Constant(6),
            run,
            save_every=2,
            num_checkpoints=3,
        ):
            if row.number % 2 == 0:
                snapshots.append(weights(model))
        files = checkpoint_files(run)
        assert len(files) == 3
        average_checkpoints(model, files)
        with pytest.raises(BadInput, match="another model"):
            average_checkpoints(nn.Conv2d(1, 2, 3), files)
    for name, tensor in model.state_dict().items():
        mean = torch.stack([snapshot[name] for snapshot in snapshots]).mean(0)
        torch.testing.assert_close(tensor, mean)


def test_the_moving_average_is_its_formula() -> None:
    model = linear()
    ema = EMA(model, 0.5)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = SGD(model.parameters(), lr=0.1)
    for row in steps(
        model, [torch.randn(2, 3)] * 4, square_loss, optimizer, Constant(4), average=ema
    ):
        decay = min(0.5, (1 + row.number) / (10 + row.number))
        for name, p in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
    for name, tensor in ema.averages.items():
        torch.testing.assert_close(tensor, expected[name])
    before = weights(model)
    with ema.in_model():
        torch.testing.assert_close(model.state_dict()["0.weight"], expected["0.weight"])
    assert torch.equal(model.state_dict()["0.weight"], before["0.weight"])


def test_shuffled_batches_are_a_function_of_their_number() -> None:
    examples = torch.arange(10)[:, None]
    batches = ShuffledBatches(examples, size=3, epochs=2, seed=4)
    assert len(batches) == 6
    first = [batches[i].flatten().tolist() for i in range(6)]
    assert [batches[i].flatten().tolist() for i in (5, 0, 3)] == [first[5], first[0], first[3]]
    for epoch in (first[:3], first[3:]):
        ids = [i for batch in epoch for i in batch]
        assert len(set(ids)) == 9
    assert first[:3] != first[3:]
    with pytest.raises(UsageError, match="batches of 11 from 10 examples"):
        ShuffledBatches(examples, size=11)
    with pytest.raises(IndexError):
        batches[6]
