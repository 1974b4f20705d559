"""The shell's `plan`: what a run will do to every layer, and what memory, disk and time it will
take.

Memory and disk come from shapes (`preflight.py`). Time comes from a rehearsal on this machine, with
this recipe: one batch of curvature, the layers of one block, a slice of the tables, one evaluation
window; each scaled to the whole.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..base.events import Event, Listener, silent
from ..base.ledger import bpw_file
from ..quantization.curvature.base import Sums
from ..quantization.pipeline import LayerPlan, solve_layer
from . import curvature_stage
from .preflight import check_fits, check_lengths
from .published import published_size
from .quantize_run import QuantizeRun

# Fixed costs measured on SmolLM2: loading models, writing files, the page.
OVERHEAD_SECONDS = 8.0
SPREAD_OF_SECONDS = (0.8, 1.25)
WEIGHTS_READ = "the model's code does more with these weights than one product: left as they are"


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
    """The whole plan; `seconds` is the estimate, low and high its likely range.

    The three facts of the original mean what they mean in results.json: the bytes of the source's
    files, and the dtype and bytes in which the model was published.
    """

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
    published_dtype: str
    published_bytes: int
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
    run = QuantizeRun.of(model, settings, listener)
    check_lengths(run, evaluate=True)
    need = check_fits(run, Path.cwd(), max_ram_gb, max_disk_gb)
    stages = rehearse(run, listener)
    seconds = sum(stages.values())
    anatomy = run.source.anatomy
    shapes = {plan.name: plan.shape for plan in run.layer_plans}
    aliases = (
        {anatomy.head: anatomy.embedding}
        if anatomy.is_tied and anatomy.head and anatomy.embedding in shapes
        else {}
    )
    patterns = run.recipe.plan.decide(shapes, aliases)
    ledger = run.ledger()
    return PlanReport(
        tuple(
            PlanLine(
                p.name, p.shape, repr(p.format), patterns[p.name], p.format.ledger(p.shape).total
            )
            for p in run.layer_plans
        ),
        ledger.bpw_codes,
        ledger.bpw_layers,
        bpw_file(need.file_bytes, run.source.anatomy.num_parameters),
        need.memory_bytes,
        need.disk_bytes,
        seconds,
        seconds * SPREAD_OF_SECONDS[0],
        seconds * SPREAD_OF_SECONDS[1],
        need.file_bytes,
        run.source.weights.file_bytes,
        *published_size(run.source),
        stages,
        (
            *(f"{plan.name}: {note}" for plan in run.layer_plans for note in plan.notes),
            *(f"{name}: {WEIGHTS_READ}" for name in sorted(anatomy.weights_read)),
        ),
    )


def rehearse(run: QuantizeRun, listener: Listener = silent) -> dict[str, float]:
    """Seconds of every stage, measured on a part and scaled."""
    stages: dict[str, float] = {"overhead": OVERHEAD_SECONDS}
    model, tokenizer = curvature_stage.load_for_passes(run.source)
    method, calibration = run.recipe.curvature, run.settings["calibration"]
    listener(Event("rehearsal", 0, 3))
    words = min(1000, len(tokenizer))
    if method is not None:
        tokens = (
            torch.arange(2 * method.batch * calibration["length"]).view(2 * method.batch, -1)
            % words
        )
        sums = Sums()
        # The first batch pays for memory that later ones reuse.
        method.accumulate(model, tokens, range(method.batch), sums, silent)
        batch_seconds = _seconds_of(
            lambda: method.accumulate(
                model, tokens, range(method.batch, 2 * method.batch), sums, silent
            )
        )
        gate = run.settings["gate"]
        stages["curvature"] = batch_seconds * calibration["count"] / method.batch
        stages["gate"] = (
            2.0 * batch_seconds * gate["count"] / method.batch if gate and method.two_sided else 0.0
        )
        del sums
    listener(Event("rehearsal", 1, 3))
    evaluation = run.settings["evaluation"]
    window = torch.arange(evaluation["length"]).view(1, -1) % words
    with torch.no_grad():
        model(input_ids=window[:, :64], use_cache=False)
        forward = _seconds_of(lambda: model(input_ids=window, use_cache=False))
    stages["evaluate"] = 1.2 * 2 * forward * evaluation["windows"] + min(
        evaluation["blocks_seconds"], forward * (len(run.source.anatomy.blocks) / 2 + 2)
    )
    del model, tokenizer
    listener(Event("rehearsal", 2, 3))
    stages["layers"] = _layers(run)
    listener(Event("rehearsal", 3, 3))
    return stages


def _layers(run: QuantizeRun) -> float:
    """The first block's layers times the blocks, and a slice of each table scaled to its rows."""
    folder = run.source.weights
    first = [
        layer_plan
        for layer_plan in run.layer_plans
        if layer_plan.in_block and layer_plan.name.startswith(f"{run.source.anatomy.blocks[0]}.")
    ]
    seconds = 0.0
    for layer_plan in first:
        w = folder.read(f"{layer_plan.name}.weight")
        seconds += _seconds_of(lambda layer_plan=layer_plan, w=w: _solve(run, layer_plan, w))  # type: ignore[misc]
    seconds *= len(run.source.anatomy.blocks)
    for layer_plan in run.layer_plans:
        if not layer_plan.in_block:
            rows = min(layer_plan.shape[0], 2048)
            w = folder.read(f"{layer_plan.name}.weight")[:rows]
            part = replace(layer_plan, shape=(rows, layer_plan.shape[1]))
            seconds += (
                _seconds_of(lambda part=part, w=w: _solve(run, part, w))
                * layer_plan.shape[0]
                / rows
            )  # type: ignore[misc]
    return seconds


def _solve(run: QuantizeRun, plan: LayerPlan, w: torch.Tensor) -> None:
    factors = None
    if plan.curvature is not None and run.recipe.curvature is not None:
        factors = run.recipe.curvature.identity_factors(*plan.shape)
        factors = factors if plan.in_block else factors.one_sided()
    solve_layer(plan, w, run.recipe.rounding, factors, run.recipe.transform)


def _seconds_of(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
