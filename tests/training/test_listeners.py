"""What is read from outside: the steps of a run that was interrupted, and TensorBoard's absence."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.run_folder import RunFolder
from featherweight.training import Constant, Loss, TensorBoard, history, steps


def loss(model: nn.Module, batch: Tensor) -> Loss:
    total = model(batch).square().sum()
    return Loss(total, len(batch), {"squares": total.detach()})


def train(run: RunFolder, stop: int, **settings: Any) -> list[float]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = SGD(model.parameters(), lr=0.1)
    batches = list(torch.randn(8, 4, 3))
    losses = []
    for step in steps(
        model, batches, loss, optimizer, Constant(8), run, save_every=2, bf16=False, **settings
    ):
        losses.append(step.loss)
        if step.number == stop:
            break
    return losses


def test_history_has_every_step_once(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out", {}) as run:
        first = train(run, 5)
        with open(run.folder / "events.jsonl", "a", encoding="utf-8") as events:
            events.write('{"time": 1, "sta')
    with RunFolder(tmp_path / "out", {}) as run:
        second = train(run, 8)
        rows = history(run.folder)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["loss"] for row in rows] == first[:4] + second
    assert rows[0]["parts/squares"] == rows[0]["loss"]
    with pytest.raises(BadInput, match="no run of training"):
        history(tmp_path)


def test_tensorboard_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        TensorBoard(tmp_path)


def test_tensorboard_gets_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scalars: list[tuple[str, float, int]] = []
    writer = types.SimpleNamespace(
        add_scalar=lambda name, value, step: scalars.append((name, value, step)),
        close=lambda: None,
    )
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda folder: writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    board = TensorBoard(tmp_path / "board")
    with RunFolder(tmp_path / "out", {}) as run:
        losses = train(run, 8, listener=board)
    board.close()
    assert [(s, v) for name, v, s in scalars if name == "loss"] == list(enumerate(losses, 1))
