"""Trains a small model to the end twice: without interruption, and killed with SIGKILL at one
random moment of each stage and started again.

    python tests/training/killed_run.py FOLDER SEED

It prints the numbers of the steps at which it was killed, as JSON, and leaves FOLDER/straight and
FOLDER/killed. Each run is a fork of this process, which has imported torch and computed nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # optimizers import it, which would take seconds in every fork
from torch import Tensor, nn
from torch.optim import AdamW

from featherweight.base.run_folder import RunFolder
from featherweight.models import tensors
from featherweight.training import (
    EMA,
    Cosine,
    Loss,
    Muon,
    ShuffledBatches,
    gradients,
    parameter_groups,
    steps,
)
from featherweight.training.checkpoint import Checkpoints

STEPS, SAVE_EVERY = 60, 4
# Calls of the stage before the kill, at random between these.
STAGES = {
    "forward": (10, 18),
    "update": (6, 9),
    "write": (1, 2),
    "rename": (1, 2),
    "journal": (1, 2),
    "caller": (5, 9),
}


class Model(nn.Module):
    """Dropout draws random numbers, and the norm has running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 16), nn.BatchNorm1d(16)
        self.dropout, self.last = nn.Dropout(0.3), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(torch.relu(self.norm(self.first(x)))))


class Scaled(nn.Module):
    """A loss with a learned parameter and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, model: nn.Module, batch: Tensor) -> Loss:
        self.count += 1
        targets = torch.stack([batch.sum(-1), batch[:, 0] * batch[:, 1]], -1)
        noise = random.random() * 1e-3
        return Loss((model(batch) * self.scale - targets - noise).square().sum(), len(batch))


def train(folder: Path, moment: Callable[[str], None]) -> None:
    """The run; `moment` is called at each stage."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model, loss = Model(), Scaled()
    matrices = [model.first.weight]
    vectors = [*parameter_groups(model, loss, weight_decay=0.1)]
    for group in vectors:
        group["params"] = [p for p in group["params"] if p is not model.first.weight]
    watch(moment)
    loss.register_forward_pre_hook(lambda *_: moment("forward"))
    data = torch.randn(80, 6, generator=torch.Generator().manual_seed(1))
    with RunFolder(folder, {"model": "small"}) as run:
        for _ in steps(
            model,
            ShuffledBatches(data, size=8, epochs=12),
            loss,
            [Muon(matrices, lr=0.02), AdamW(vectors, lr=1e-2)],
            Cosine(STEPS, 5),
            run,
            accumulate=2,
            average=EMA(model, 0.9),
            save_every=SAVE_EVERY,
            bf16=False,
        ):
            torch.rand(1)
            moment("caller")


def watch(moment: Callable[[str], None]) -> None:
    """Call `moment` inside the update, in the middle of a file, after its renaming, and after its
    entry in the journal.
    """
    scale, save_file, write_shard, write = (
        gradients.scale,
        tensors.save_file,
        tensors.write_shard,
        Checkpoints.write,
    )

    def scale_and_stop(*arguments: Any) -> None:
        scale(*arguments)
        moment("update")

    def save_half(contents: Any, path: Any, metadata: Any) -> None:
        save_file(contents, path, metadata)
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[: len(content) // 2])
        moment("write")
        Path(path).write_bytes(content)

    def write_and_stop(*arguments: Any) -> None:
        write_shard(*arguments)
        moment("rename")

    def checkpoint_and_stop(self: Checkpoints, *arguments: Any) -> None:
        write(self, *arguments)
        moment("journal")

    gradients.scale = scale_and_stop
    tensors.save_file = save_half
    sys.modules[Checkpoints.__module__].write_shard = write_and_stop  # type: ignore[attr-defined]
    Checkpoints.write = checkpoint_and_stop  # type: ignore[method-assign]


def fork(folder: Path, stage: str | None, count: int) -> int:
    """Train in a fork, which is killed at the `count`-th call of `stage`; returns its status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    calls = 0

    def moment(name: str) -> None:
        nonlocal calls
        calls += name == stage
        if name == stage and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        train(folder, moment)
        code = 0
    finally:
        os._exit(code)


def last_step(folder: Path) -> int:
    """The last step that the events of a killed run tell of."""
    lines = (folder.with_name(f"{folder.name}.partial") / "events.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["done"] if lines else 0


def main(folder: Path, seed: int) -> None:
    """See above."""
    chance = random.Random(seed)
    assert fork(folder / "straight", None, 0) == 0
    stages, killed_at = list(STAGES), {}
    chance.shuffle(stages)
    for stage in stages:
        status = fork(folder / "killed", stage, chance.randint(*STAGES[stage]))
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (stage, status)
        killed_at[stage] = last_step(folder / "killed")
    assert fork(folder / "killed", None, 0) == 0
    print(json.dumps(killed_at))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
