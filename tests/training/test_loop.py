"""The loop on models that know no tokens: it yields, means are over the whole optimizer batch, and
what cannot work is refused first.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.events import Event
from featherweight.base.run_folder import RunFolder
from featherweight.training import (
    EMA,
    Constant,
    Cosine,
    Loss,
    checkpoint_files,
    parameter_groups,
    steps,
)


class Images(nn.Module):
    """A small convolutional network with running statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4 * 16, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.dropout(torch.relu(self.norm(self.conv(images))))
        return self.head(features.flatten(1))


def image_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Loss:
    images, labels = batch
    logits = model(images)
    losses = functional.cross_entropy(logits, labels, reduction="none")
    correct = (logits.argmax(-1) == labels).float()
    return Loss(losses.sum(), len(labels), {"accuracy": correct.sum()})


def image_batches(count: int, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (count, size), generator=generator)
    noise = torch.randn(count, size, 1, 6, 6, generator=generator)
    return [(x + y[:, None, None, None], y) for x, y in zip(noise, labels, strict=True)]


def images_model() -> Images:
    torch.manual_seed(0)
    return Images()


def square_loss(model: nn.Module, batch: Tensor) -> Loss:
    """A regression whose micro-batches have any number of rows."""
    return Loss((model(batch) - batch.sum(-1, keepdim=True)).square().sum(), len(batch))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_vision_model_learns() -> None:
    model = images_model()
    optimizer = AdamW(parameter_groups(model, weight_decay=0.1), lr=1e-2)
    rows = list(steps(model, image_batches(60), image_loss, optimizer, Cosine(60, 5), bf16=False))
    assert [row.number for row in rows] == list(range(1, 61))
    assert rows[-1].loss < 0.6 * rows[0].loss
    assert rows[-1].parts["accuracy"] > 0.7
    assert rows[-1].units_seen == 60 * 8
    assert rows[-1].eta_seconds == 0
    assert all(row.units_per_second > 0 and row.gradient_norm > 0 for row in rows)
    assert rows[0].lr == pytest.approx(1e-2 / 5)


def test_the_result_does_not_depend_on_micro_batches() -> None:
    """Unequal micro-batches: the mean is over rows, not over micro-batches."""
    data = torch.randn(4, 12, 3)
    cuts = [[12], [1, 11], [5, 4, 3], [2, 2, 2, 6]]
    models = []
    for cut in cuts:
        model = linear()
        batches = [part for rows in data for part in rows.split(cut)]
        optimizer = AdamW(model.parameters(), lr=1e-2)
        rows = list(
            steps(
                model, batches, square_loss, optimizer, Constant(4), accumulate=len(cut), clip=0.5
            )
        )
        assert rows[-1].units_seen == 48
        models.append((model, rows))
    for model, rows in models[1:]:
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, models[0][0].state_dict()[name])
        for row, expected in zip(rows, models[0][1], strict=True):
            assert row.loss == pytest.approx(expected.loss, rel=1e-5)
            assert row.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)


def test_a_step_equals_torch() -> None:
    """One step by hand: mean loss, clip_grad_norm_, SGD."""
    batch = torch.randn(6, 3)
    expected, model = linear(), linear()
    loss = square_loss(expected, batch)
    (loss.total / loss.weight).backward()
    norm = nn.utils.clip_grad_norm_(expected.parameters(), 0.1)
    SGD(expected.parameters(), lr=0.5).step()
    (row,) = steps(
        model, [batch], square_loss, SGD(model.parameters(), lr=0.5), Constant(1), clip=0.1
    )
    assert row.gradient_norm == pytest.approx(float(norm), rel=1e-5)
    assert row.loss == pytest.approx(loss.total.item() / 6, rel=1e-6)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name])


def test_rates_follow_the_schedule_and_come_back() -> None:
    model = linear()
    optimizer = AdamW(parameter_groups(model, weight_decay=0.1), lr=1e-2)
    rows = list(steps(model, [torch.randn(2, 3)] * 4, square_loss, optimizer, Cosine(4, 2, 0.5)))
    assert [row.lr for row in rows] == pytest.approx([0.005, 0.01, 0.01, 0.005])
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-2]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def recipe_run(tmp_path: Path, name: str = "out") -> RunFolder:
    return RunFolder(tmp_path / name, {"model": "images"})


def train_images(
    run: RunFolder | None, stop: int | None = None, save_every: int = 4
) -> tuple[Images, EMA, list[Any]]:
    model = images_model()
    ema = EMA(model, 0.9)
    optimizer = AdamW(parameter_groups(model, weight_decay=0.1), lr=1e-2)
    torch.manual_seed(5)
    rows = []
    for row in steps(
        model,
        image_batches(20),
        image_loss,
        optimizer,
        Cosine(10, 2),
        run,
        accumulate=2,
        average=ema,
        save_every=save_every,
        bf16=False,
    ):
        rows.append(row)
        # The caller draws random numbers too.
        torch.rand(row.number)
        if row.number == stop:
            break
    return model, ema, rows


@pytest.mark.parametrize("stop", [3, 5, 8, 10])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, stop: int) -> None:
    straight, straight_ema, straight_rows = train_images(None)
    with recipe_run(tmp_path) as run:
        train_images(run, stop)
    with recipe_run(tmp_path) as run:
        resumed, ema, rows = train_images(run)
    assert rows[0].number == (stop - 1) // 4 * 4 + 1
    assert [row.loss for row in rows] == [row.loss for row in straight_rows[-len(rows) :]]
    assert rows[-1].units_seen == straight_rows[-1].units_seen
    assert_equal(resumed, straight)
    for name, tensor in ema.averages.items():
        assert torch.equal(tensor, straight_ema.averages[name])
    with recipe_run(tmp_path) as run:
        finished, _, rows = train_images(run)
    assert rows == []
    assert_equal(finished, straight)


def test_the_caller_saves(tmp_path: Path) -> None:
    with recipe_run(tmp_path) as run:
        model = images_model()
        optimizer = AdamW(model.parameters(), lr=1e-2)
        for row in steps(model, image_batches(9), image_loss, optimizer, Constant(9), run):
            if row.number == 5:
                row.save()
                break
    with recipe_run(tmp_path) as run:
        optimizer = AdamW(model.parameters(), lr=1e-2)
        rows = list(steps(model, image_batches(9), image_loss, optimizer, Constant(9), run))
    assert rows[0].number == 6


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    with recipe_run(tmp_path) as run:
        train_images(run, 5)
    model = images_model()
    optimizer = AdamW(model.parameters(), lr=2e-2, weight_decay=0.1)
    with recipe_run(tmp_path) as run, pytest.raises(UsageError) as refusal:
        steps(model, image_batches(20), image_loss, optimizer, Cosine(10, 3), run, clip=2.0)
    for key in ("schedule", "accumulate: 2 became 1", "clip: 1.0 became 2.0", "optimizer"):
        assert key in str(refusal.value)


def test_a_spoiled_checkpoint_does_not_count(tmp_path: Path) -> None:
    straight, _, _ = train_images(None)
    with recipe_run(tmp_path) as run:
        train_images(run, 9)
        newest = checkpoint_files(run)[-1]
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(bytes(content))
    with recipe_run(tmp_path) as run:
        resumed, _, rows = train_images(run)
    assert rows[0].number == 5
    assert_equal(resumed, straight)


def test_a_full_disk_leaves_the_earlier_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featherweight.models import tensors

    straight, _, _ = train_images(None)
    save_file = tensors.save_file
    with recipe_run(tmp_path) as run:
        train_images(run, 5)

    def save_half(contents: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with recipe_run(tmp_path) as run:
        monkeypatch.setattr(tensors, "save_file", save_half)
        with pytest.raises(BadInput, match="no space left on the disk"):
            train_images(run)
    monkeypatch.setattr(tensors, "save_file", save_file)
    with recipe_run(tmp_path) as run:
        resumed, _, rows = train_images(run)
    assert rows[0].number == 5
    assert_equal(resumed, straight)


def test_events_tell_the_losses(tmp_path: Path) -> None:
    events: list[Event] = []
    with recipe_run(tmp_path) as run:
        optimizer = AdamW((model := linear()).parameters(), lr=1e-2)
        batches = [torch.randn(2, 3)] * 3
        rows = list(
            steps(model, batches, square_loss, optimizer, Constant(3), run, listener=events.append)
        )
        lines = (run.folder / "events.jsonl").read_text().splitlines()
    assert [event.done for event in events] == [1, 2, 3]
    entries = [json.loads(line) for line in lines]
    assert [entry["values"]["loss"] for entry in entries] == [row.loss for row in rows]
    assert entries[-1]["eta_seconds"] == 0
    assert "loss" in entries[0]["message"]


def test_what_cannot_work_is_refused_first() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), lr=0.1)
    batches = [torch.randn(2, 3)] * 3
    with pytest.raises(UsageError, match="4 steps need 8 micro-batches, there are 3"):
        steps(model, batches, square_loss, optimizer, Constant(4), accumulate=2)
    with pytest.raises(UsageError, match="num_checkpoints=1 at least 2"):
        steps(model, batches, square_loss, optimizer, Constant(3), num_checkpoints=1)
    with pytest.raises(UsageError, match="neither the model nor the loss"):
        steps(linear(), batches, square_loss, optimizer, Constant(3))


def test_a_batch_without_weight_is_refused() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(BadInput, match="nothing counts in step 1"):
        list(steps(model, [torch.zeros(0, 3)], square_loss, optimizer, Constant(1)))


class LossWithState(nn.Module):
    """A loss with a learned parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, model: nn.Module, batch: Tensor) -> Loss:
        self.count += 1
        error = (model(batch) - batch.sum(-1, keepdim=True)).square().sum()
        total = error * self.log_scale.exp() - len(batch) * self.log_scale + 0.01 * self.count
        return Loss(total, len(batch))


def test_the_state_of_a_loss_is_saved(tmp_path: Path) -> None:
    def train(run: RunFolder | None, stop: int) -> LossWithState:
        model, loss = linear(), LossWithState()
        optimizer = AdamW(parameter_groups(model, loss, weight_decay=0.1), lr=1e-2)
        batches = list(torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1)))
        for row in steps(model, batches, loss, optimizer, Constant(6), run, save_every=2):
            if row.number == stop:
                break
        return loss

    straight = train(None, 6)
    with recipe_run(tmp_path) as run:
        train(run, 5)
    with recipe_run(tmp_path) as run:
        resumed = train(run, 6)
    assert resumed.count == 6
    assert resumed.log_scale != 0
    assert_equal(resumed, straight)


def test_products_in_bfloat16() -> None:
    model = linear()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    dtypes = []
    model.register_forward_hook(lambda m, a, output: dtypes.append(output.dtype))
    list(steps(model, [torch.randn(2, 3)], square_loss, optimizer, Constant(1), bf16=True))
    assert dtypes == [torch.bfloat16]
    assert all(p.dtype == torch.float32 for p in model.parameters())
