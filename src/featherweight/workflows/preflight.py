"""How much memory and disk a run will take, from shapes alone, and the refusal when there is not enough.

Memory is the largest of three stages (each added to what this process holds after its imports):
- curvature: the model, the running sums, one batch's activations and logits, or the sums and their packed copy;
- layers: one matrix, its factors in float64 while they are split, and the encoder's batch;
- evidence: the original and the decoded light model in float32, and two windows of logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..base import machine
from ..base.errors import PreflightRefused
from .job import Job

# Saved by autograd for one token of one block, in units of (hidden, intermediate) widths; measured on Llama blocks.
HIDDEN_KEPT, INTERMEDIATE_KEPT = 14, 6


@dataclass(frozen=True)
class Needs:
    """Bytes at the peak: memory of this process, disk in OUT.partial/, and the finished weight files."""

    memory_bytes: int
    disk_bytes: int
    file_bytes: int
    stages: tuple[tuple[str, int], ...]


def needs(job: Job) -> Needs:
    """Estimate from shapes; reads nothing but headers."""
    base = machine.peak_memory_bytes()
    model = 4 * job.num_parameters
    stages = {
        "curvature": base + _curvature(job, model),
        "layers": base + _layers(job),
        "evidence": base + _evidence(job, model),
    }
    stored = job.bits().total // 8
    compressed = sum(task.shape[0] * task.shape[1] for task in job.todo)
    rest = max(0, job.num_parameters - compressed) * _source_bytes(job)
    sums = sum(_square_bytes(job)) // 2
    file_bytes = stored + rest + 60_000
    disk = max(2 * sums, sums + 2 * stored + rest) + 2_000_000
    return Needs(max(stages.values()), disk, file_bytes, tuple(stages.items()))


def check_fits(job: Job, out: Path, max_ram_gb: float | None, max_disk_gb: float | None) -> Needs:
    """Raise PreflightRefused when the plan needs more than there is, or than the user allows."""
    need = needs(job)
    free = machine.available_memory_bytes() + machine.peak_memory_bytes()
    ram = free if max_ram_gb is None else min(free, int(max_ram_gb * 1e9))
    disk = machine.free_disk_bytes(out)
    disk = disk if max_disk_gb is None else min(disk, int(max_disk_gb * 1e9))
    if need.memory_bytes > ram:
        stage = max(need.stages, key=lambda item: item[1])[0]
        raise PreflightRefused(
            f"the plan needs about {need.memory_bytes / 1e9:.1f} GB of memory (stage {stage}), and {ram / 1e9:.1f} GB "
            "may be used; try --preset fast, a smaller calibration.count or curvature=FisherA(batch=1, keep_graphs=False)"
        )
    if need.disk_bytes > disk:
        raise PreflightRefused(
            f"the plan needs about {need.disk_bytes / 1e9:.1f} GB of disk beside {out}, and {disk / 1e9:.1f} GB may be "
            "used; free some, or choose another --out"
        )
    return need


def _square_bytes(job: Job) -> list[int]:
    """Bytes of every running sum."""
    if job.recipe.curvature is None:
        return []
    inside = [task for task in job.todo if task.in_block]
    widths = {task.input_key: task.shape[1] for task in inside}
    found = [4 * n * n for n in widths.values()] + [4 * _widths(job)[0] ** 2]  # the last is the head's
    if job.recipe.curvature.two_sided:
        found += [4 * (task.shape[0] ** 2 + task.shape[1] ** 2) for task in inside]
    return found


def _curvature(job: Job, model: int) -> int:
    method, wanted = job.recipe.curvature, job.settings["calibration"]
    if method is None:
        return 0
    sums = sum(_square_bytes(job))
    tokens = method.batch * wanted["length"]
    hidden, widest = _widths(job)
    block = tokens * (HIDDEN_KEPT * hidden + INTERMEDIATE_KEPT * widest) * 4
    if not method.two_sided:
        return model + max(sums + block, sums + sums // 2)
    vocab = max(task.shape[0] for task in job.todo)
    logits = 3 * tokens * vocab * 4
    blocks = block * (len(job.block_names) if method.keep_graphs else 1) + tokens * hidden * 4 * len(job.block_names)
    return model + max(sums + blocks + logits, sums + sums // 2)


def _layers(job: Job) -> int:
    largest = max((max(task.shape) for task in job.todo if task.in_block), default=0)
    # Rounded to nearest: the matrix, padded, and its codes; under curvature also rotated, what it became, and the errors.
    table = max((t.shape[0] * t.shape[1] * 4 * (7 if t.curvature else 3) for t in job.todo), default=0)
    return max(8 * largest * largest * 6, table) + 200_000_000


def _evidence(job: Job, model: int) -> int:
    wanted = job.settings["evaluation"]
    vocab = max(task.shape[0] for task in job.todo)
    return 2 * model + job.bits().total // 8 + 4 * wanted["length"] * vocab * 4


def _widths(job: Job) -> tuple[int, int]:
    inside = [task.shape for task in job.todo if task.in_block]
    return min(max(s) for s in inside), max(max(s) for s in inside)


def _source_bytes(job: Job) -> int:
    return max(2, round(job.weights.file_bytes / job.num_parameters))
