"""Estimates the memory and disk space of a run from shapes alone, and refuses a run that needs too
much.

The memory is that of this process after its imports plus that of the largest of three stages:
- curvature: the model, and the estimate of the method (`Curvature.memory`);
- layers: one matrix, its factors in float64 while they are split, and the encoder's batch;
- evidence: the original and the decoded light model in float32, and two windows of logits. Where
  they do not fit together, one of them at a time, and the original's answers on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..base import machine
from ..base.errors import PreflightRefused, UsageError
from ..interchange.source import Source
from .quality import answers_bytes
from .quantize_run import QuantizeRun


@dataclass(frozen=True)
class Needs:
    """The peak memory of the process, the peak size of OUT.partial/ and the size of the finished
    weight files, all in bytes. `stages`: name and memory of each stage. `in_turns`: whether the
    evidence has only one of the two models in memory at a time.
    """

    memory_bytes: int
    disk_bytes: int
    file_bytes: int
    stages: tuple[tuple[str, int], ...]
    in_turns: bool = False


def needs(run: QuantizeRun, in_turns: bool = False) -> Needs:
    """The estimate for `run`, which reads only the headers of files. in_turns: whether the evidence
    has one model in memory at a time.
    """
    process_bytes = machine.peak_memory_bytes()
    anatomy, curvature = run.source.anatomy, run.recipe.curvature
    model_bytes = 4 * anatomy.num_parameters
    collection = 0
    if curvature is not None:
        collection = model_bytes + curvature.memory(anatomy, run.settings["calibration"]["length"])
    stages = {
        "curvature": process_bytes + collection,
        "layers": process_bytes + _layer_bytes(run),
        "evidence": process_bytes + _evidence_bytes(run, model_bytes, in_turns),
    }
    stored_bytes = run.ledger().total // 8
    num_compressed = sum(plan.shape[0] * plan.shape[1] for plan in run.layer_plans)
    copied_bytes = max(0, anatomy.num_parameters - num_compressed) * _source_bytes_per_weight(run)
    saved_sums = 0 if curvature is None else curvature.sums_bytes(anatomy) // 2
    file_bytes = stored_bytes + copied_bytes + 60_000
    answer_bytes = answers_bytes(run) if in_turns else 0
    layer_bytes = saved_sums + 2 * stored_bytes + copied_bytes + answer_bytes
    disk_bytes = max(2 * saved_sums, layer_bytes) + 2_000_000
    return Needs(max(stages.values()), disk_bytes, file_bytes, tuple(stages.items()), in_turns)


def check_fits(
    run: QuantizeRun, out: Path, max_ram_gb: float | None, max_disk_gb: float | None
) -> Needs:
    """Return the estimate for `run`; raise PreflightRefused when it needs more memory or disk space
    than are free, or than the user allows. When both models of the evidence do not fit together,
    it has them one after the other.
    """
    free = machine.available_memory_bytes() + machine.peak_memory_bytes()
    ram = free if max_ram_gb is None else min(free, int(max_ram_gb * 1e9))
    disk = machine.free_disk_bytes(out)
    disk = disk if max_disk_gb is None else min(disk, int(max_disk_gb * 1e9))
    need = needs(run)
    if need.memory_bytes > ram:
        need = needs(run, in_turns=True)
    if need.memory_bytes > ram:
        stage = max(need.stages, key=lambda item: item[1])[0]
        raise PreflightRefused(
            f"the plan needs about {need.memory_bytes / 1e9:.1f} GB of memory (stage {stage}), and "
            f"{ram / 1e9:.1f} GB "
            "may be used; try --preset fast, a smaller calibration.count or "
            "curvature=FisherA(batch=1, keep_graphs=False)"
        )
    if need.disk_bytes > disk:
        raise PreflightRefused(
            f"the plan needs about {need.disk_bytes / 1e9:.1f} GB of disk beside {out}, and "
            f"{disk / 1e9:.1f} GB may be "
            "used; free some, or choose another --out"
        )
    return need


def check_lengths(run: QuantizeRun, evaluate: bool) -> None:
    """Raise UsageError when the sequences of calibration or evaluation exceed the model's context.

    Models with learned positions would fail after hours of work, and models with rotary positions
    would be measured where they were never trained.
    """
    for name in ("calibration", *(["evaluation"] if evaluate else [])):
        settings = run.settings[name]
        if settings is not None:
            check_length(run.source, settings["length"], f"--set {name}.length=N")


def check_length(source: Source, length: int, option: str) -> None:
    """Raise UsageError, naming the option to use, when `length` tokens exceed the context."""
    if source.context is not None and length > source.context:
        raise UsageError(
            f"sequences of {length} tokens are longer than the context of {source.display_name}, "
            f"{source.context} tokens; choose at most {source.context} with {option}"
        )


def _layer_bytes(run: QuantizeRun) -> int:
    largest = max((max(plan.shape) for plan in run.layer_plans if plan.in_block), default=0)
    # The factors 3 and 7 count copies of the float32 matrix. Nearest rounding needs the padded
    # matrix, its codes and its values; rounding with curvature also the rotated matrix, the rounded
    # one, and the errors.
    table = max(
        (p.shape[0] * p.shape[1] * 4 * (7 if p.curvature else 3) for p in run.layer_plans),
        default=0,
    )
    return max(8 * largest * largest * 6, table) + 200_000_000


def _evidence_bytes(run: QuantizeRun, model_bytes: int, in_turns: bool) -> int:
    logits = 4 * run.settings["evaluation"]["length"] * run.source.anatomy.vocabulary * 4
    return (1 if in_turns else 2) * model_bytes + run.ledger().total // 8 + logits


def _source_bytes_per_weight(run: QuantizeRun) -> int:
    return max(2, round(run.source.weights.file_bytes / run.source.anatomy.num_parameters))
