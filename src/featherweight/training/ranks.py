"""Several processes under torchrun: sums over ranks, FSDP2, and tensors that are spread over ranks.

    torchrun --nproc-per-node 2 train.py

    with process_group(), open_run("out/run", recipe) as run:
        shard(model, [block for block in model.layers])      # before the optimizer is made
        for step in steps(model, batches, loss, optimizer, schedule, run): ...

Without torchrun the same program runs in one process. Gradients of parameters that are not sharded
are summed by the loop, so small models need no `shard`. The run folder belongs to rank 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..base.errors import FeatherweightError, UsageError
from ..base.run_folder import RunFolder


def rank() -> int:
    """The number of this process; 0 without a process group."""
    return dist.get_rank() if _is_group() else 0


def num_ranks() -> int:
    """The number of processes; 1 without a process group."""
    return dist.get_world_size() if _is_group() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over all ranks, in place."""
    if num_ranks() > 1:
        dist.all_reduce(tensor)
    return tensor


def share(content: Any) -> Any:
    """The object of rank 0, on every rank."""
    if num_ranks() == 1:
        return content
    boxes = [content]
    dist.broadcast_object_list(boxes, src=0)
    return boxes[0]


def gather(content: Any) -> list[Any]:
    """The objects of all ranks, on every rank."""
    if num_ranks() == 1:
        return [content]
    boxes: list[Any] = [None] * num_ranks()
    dist.all_gather_object(boxes, content)
    return boxes


@contextmanager
def process_group() -> Iterator[None]:
    """Inside this context the processes of torchrun are one group; without torchrun, nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def open_run(
    out: Path | str, recipe: Mapping[str, Any], **settings: Any
) -> Iterator[RunFolder | None]:
    """The `RunFolder` on rank 0, None on the others. What rank 0 refuses, every rank refuses."""
    run, error = None, None
    if rank() == 0:
        try:
            run = RunFolder(out, recipe, **settings)
        except FeatherweightError as refusal:
            error = refusal
    message = share(None if error is None else str(error))
    if message is not None:
        raise error or UsageError(message)
    try:
        yield run
    finally:
        if run is not None:
            run.close()


def shard(model: nn.Module, blocks: Iterable[nn.Module] = ()) -> nn.Module:
    """Spread the parameters of `model` over the ranks (FSDP2); each of `blocks` is gathered alone.

    The gradients are averaged by FSDP2 and scaled by the loop. Call it before the optimizer is
    made. Raises UsageError without a process group.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if not _is_group():
        raise UsageError("nothing to shard over: start with torchrun, and call it in process_group")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (num_ranks(),))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def is_sharded(tensor: Tensor) -> bool:
    """Whether each rank holds only a part of `tensor`."""
    return _is_group() and isinstance(tensor, _dtensor())


def local(tensor: Any) -> Tensor:
    """The part of `tensor` that this rank holds."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def full(tensor: Any) -> Tensor:
    """`tensor` with the parts of all ranks; every rank must call this."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def distribute(numbers: Tensor, like: Any) -> Tensor:
    """`numbers`, which every rank has in full, on the device of `like` and divided as it is."""
    numbers = numbers.to(like.device)
    if not is_sharded(like):
        return numbers
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(numbers, like.device_mesh, like.placements, src_data_rank=None)


def _is_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _dtensor() -> type[Tensor]:
    from torch.distributed.tensor import DTensor

    return DTensor
