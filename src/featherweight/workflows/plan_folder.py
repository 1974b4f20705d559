"""The shell's `plan`: what a run will do to every layer, and what memory, disk and time it will take.

Memory and disk come from shapes (`preflight.py`). Time comes from a rehearsal on this machine, with this recipe: one
batch of curvature, the layers of one block, a slice of the tables, one evaluation window; each scaled to the whole.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..base.bits import bpw_file
from ..base.events import Event, Listener, silent
from ..models.tensors import TensorFolder
from ..quantization.curvature.base import Factors, Sums
from ..quantization.pipeline import Task, solve_layer
from . import curvature_stage
from .job import Job
from .preflight import check_fits

# Fixed costs measured on SmolLM2: loading models, writing files, the page.
OVERHEAD_SECONDS = 8.0
SPREAD = (0.8, 1.25)


@dataclass(frozen=True)
class PlanLine:
    """One matrix: what decides it and what it will cost (`bits`: stored in all)."""

    name: str
    shape: tuple[int, int]
    format: str
    pattern: str
    bits: int


@dataclass(frozen=True)
class PlanReport:
    """The whole plan; `seconds` is the estimate, low and high its likely range."""

    lines: tuple[PlanLine, ...]
    bpw_codes: float
    bpw_layers: float
    bpw_file: float
    peak_memory_bytes: int
    disk_bytes: int
    seconds: float
    seconds_low: float
    seconds_high: float
    file_bytes: int
    source_file_bytes: int
    stages: Mapping[str, float]
    warnings: tuple[str, ...] = ()


def plan_folder(
    model: str,
    settings: Mapping[str, Any],
    *,
    max_ram_gb: float | None = None,
    max_disk_gb: float | None = None,
    listener: Listener = silent,
) -> PlanReport:
    """Raises what `quantize_folder` would raise before its work, PreflightRefused included."""
    job = Job.of(model, settings, listener)
    need = check_fits(job, Path.cwd(), max_ram_gb, max_disk_gb)
    stages = rehearse(job, listener)
    seconds = sum(stages.values())
    names = {task.name: task.shape for task in job.todo}
    tied = {} if job.tied_head is None else {job.tied_head: next(t.name for t in job.todo if not t.in_block)}
    patterns = job.recipe.plan.decide(names, {k: v for k, v in tied.items() if v in names})
    bits = job.bits()
    return PlanReport(
        tuple(
            PlanLine(t.name, t.shape, repr(t.format), patterns[t.name], t.format.bits(t.shape).total) for t in job.todo
        ),
        bits.bpw_codes,
        bits.bpw_layers,
        bpw_file(need.file_bytes, job.num_parameters),
        need.memory_bytes,
        need.disk_bytes,
        seconds,
        seconds * SPREAD[0],
        seconds * SPREAD[1],
        need.file_bytes,
        job.weights.file_bytes,
        stages,
    )


def rehearse(job: Job, listener: Listener = silent) -> dict[str, float]:
    """Seconds of every stage, measured on a part and scaled."""
    stages: dict[str, float] = {"overhead": OVERHEAD_SECONDS}
    model, tokenizer = curvature_stage.load_for_passes(job.source, job.num_parameters)
    method, wanted = job.recipe.curvature, job.settings["calibration"]
    listener(Event("rehearsal", 0, 3))
    words = min(1000, len(tokenizer))
    if method is not None:
        tokens = torch.arange(2 * method.batch * wanted["length"]).view(2 * method.batch, -1) % words
        sums = Sums()
        # The first batch pays for memory that later ones reuse.
        method.accumulate(model, tokens, range(method.batch), sums, silent)
        spent = _timed(lambda: method.accumulate(model, tokens, range(method.batch, 2 * method.batch), sums, silent))
        gate = job.settings["gate"]
        stages["curvature"] = spent * wanted["count"] / method.batch
        stages["gate"] = 2.0 * spent * gate["count"] / method.batch if gate and method.two_sided else 0.0
        del sums
    listener(Event("rehearsal", 1, 3))
    evaluation = job.settings["evaluation"]
    window = torch.arange(evaluation["length"]).view(1, -1) % words
    with torch.no_grad():
        model(input_ids=window[:, :64], use_cache=False)
        forward = _timed(lambda: model(input_ids=window, use_cache=False))
    stages["evaluate"] = 1.2 * 2 * forward * evaluation["windows"] + min(
        evaluation["blocks_seconds"], forward * (len(job.block_names) / 2 + 2)
    )
    del model, tokenizer
    listener(Event("rehearsal", 2, 3))
    stages["layers"] = _layers(job)
    listener(Event("rehearsal", 3, 3))
    return stages


def _layers(job: Job) -> float:
    """The first block's layers times the blocks, and a slice of each table scaled to its rows."""
    folder = TensorFolder(job.source)
    first = [task for task in job.todo if task.in_block and task.name.startswith(f"{job.block_names[0]}.")]
    seconds = 0.0
    for task in first:
        w = folder.read(f"{task.name}.weight")
        seconds += _timed(lambda task=task, w=w: _solve(job, task, w))  # type: ignore[misc]
    seconds *= len(job.block_names)
    for task in job.todo:
        if not task.in_block:
            rows = min(task.shape[0], 2048)
            w = folder.read(f"{task.name}.weight")[:rows]
            part = replace(task, shape=(rows, task.shape[1]))
            seconds += _timed(lambda part=part, w=w: _solve(job, part, w)) * task.shape[0] / rows  # type: ignore[misc]
    return seconds


def _solve(job: Job, task: Task, w: torch.Tensor) -> None:
    factors = None
    if task.curvature is not None and job.recipe.curvature is not None:
        two_sided = job.recipe.curvature.two_sided and task.in_block
        eye_in, eye_out = torch.eye(task.shape[1]), torch.eye(task.shape[0] if two_sided else 0)
        factors = Factors(eye_in, eye_in if two_sided else None, eye_out if two_sided else None, 1.0, 1, 1)
    solve_layer(task, w, job.recipe.rounding, factors, job.recipe.transform)


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
