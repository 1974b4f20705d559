"""Steps that are not finite change nothing, are counted, and stop the run with the layer's name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from featherweight.base.errors import BadInput
from featherweight.base.run_folder import RunFolder
from featherweight.training import Constant, Loss, checkpoint_files, steps


class Model(nn.Module):
    """Running statistics, and a layer that overflows for inputs above 100."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(3)
        self.first = nn.Linear(3, 4)
        self.second = Overflow()
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(self.norm(x)), x))


class Overflow(nn.Module):
    def forward(self, x: Tensor, inputs: Tensor) -> Tensor:
        return x * (1.0 if inputs.abs().max() < 100 else math.inf)


def loss(model: nn.Module, batch: Tensor) -> Loss:
    return Loss(model(batch).square().sum(), len(batch))


def batches(*bad: int, count: int = 12) -> list[Tensor]:
    rows = list(torch.randn(count, 4, 3, generator=torch.Generator().manual_seed(0)))
    return [1000 * row if i in bad else row for i, row in enumerate(rows)]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def run_all(model: nn.Module, inputs: list[Tensor], **settings: Any) -> Any:
    optimizer = AdamW(model.parameters(), lr=1e-2)
    return steps(model, inputs, loss, optimizer, Constant(len(inputs)), bf16=False, **settings)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    model = Model()
    before, rows = state(model), []
    for row in run_all(model, batches(3, 4, 9)):
        rows.append(row)
        after = state(model)
        changed = any(not torch.equal(after[name], before[name]) for name in before)
        assert changed != row.is_skipped
        before = after
    assert [row.number for row in rows if row.is_skipped] == [4, 5, 10]
    assert rows[-1].num_skipped == 3
    assert not math.isfinite(rows[3].loss)
    assert all(tensor.isfinite().all() for tensor in state(model).values())


def test_skipped_steps_leave_the_run_of_the_others() -> None:
    """The same model as when the bad batches had never been there."""
    spoiled, clean = Model(), Model()
    list(run_all(spoiled, batches(3, 4, 9)))
    list(run_all(clean, [row for i, row in enumerate(batches()) if i not in (3, 4, 9)]))
    for a, b in zip(state(spoiled).values(), state(clean).values(), strict=True):
        assert torch.equal(a, b)


def test_several_in_a_row_stop_with_the_layer(tmp_path: Path) -> None:
    model = Model()
    with RunFolder(tmp_path / "out", {}) as run:
        rows: list[Any] = []
        good: dict[str, Tensor] = {}

        def follow() -> None:
            for row in run_all(model, batches(2, 6, 7, 8), run=run, max_nonfinite=3):
                rows.append(row)
                if not row.is_skipped:
                    good.update(state(model))

        with pytest.raises(BadInput) as error:
            follow()
        assert len(rows) == 8
        for words in (
            "3 steps in a row",
            "from step 7 on",
            "the output of second is not finite",
            "the last good state is kept in",
        ):
            assert words in str(error.value)
        newest = checkpoint_files(run)[-1]
        from safetensors.torch import load_file

        tensors = load_file(newest)
    for name, tensor in good.items():
        assert torch.equal(tensors[f"model/{name}"], tensor)
    assert torch.equal(model.last.weight, good["last.weight"])


def test_other_causes_are_named() -> None:
    bad = batches()
    bad[0] = bad[0] * math.nan
    with pytest.raises(BadInput, match="the batch holds numbers that are not finite"):
        list(run_all(Model(), bad, max_nonfinite=1))
    model = Model()
    with torch.no_grad():
        model.last.bias.fill_(math.nan)
    with pytest.raises(BadInput, match="last.bias itself holds"):
        list(run_all(model, batches(), max_nonfinite=1))


class InfiniteSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        return slope * math.inf


def test_a_gradient_is_named() -> None:
    model = Model()
    model.second.forward = lambda x, inputs: InfiniteSlope.apply(x)  # type: ignore[method-assign]
    with pytest.raises(BadInput, match="the gradient of first.bias is not finite"):
        list(run_all(model, batches(), max_nonfinite=1))


def test_a_loss_is_named() -> None:
    model = Model()

    def spoiled(model: nn.Module, batch: Tensor) -> Loss:
        return Loss(model(batch).square().sum() * math.inf, len(batch))

    optimizer = AdamW(model.parameters(), lr=1e-2)
    with pytest.raises(BadInput, match="the loss is not finite, although"):
        list(steps(model, batches(), spoiled, optimizer, Constant(3), max_nonfinite=1))
