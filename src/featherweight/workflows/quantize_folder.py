"""The shell's `quantize`: a model folder goes in, a packed folder with its evidence comes out.

    locate -> plan -> preflight -> curvature -> gate -> layers -> assemble -> evaluate -> report -> one rename

Work lies in OUT.partial/ and is journalled unit by unit; the same command after a kill continues and ends with the same
bytes of weights and config. One matrix and its factors are in memory while layers are solved.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..base.events import Listener, silent, track
from ..base.run_folder import RunFolder, is_finished
from ..interchange import packed
from ..models.tensors import TensorFolder, write_shard
from ..quantization.curvature.base import Factors
from ..quantization.curvature.storage import Snapshot
from ..quantization.pipeline import Solution, Task, solve_layer
from . import curvature_stage, evidence
from .job import Job
from .preflight import check_fits


def quantize_folder(
    model: str,
    out: Path,
    settings: Mapping[str, Any],
    *,
    fresh: bool = False,
    overwrite: bool = False,
    max_ram_gb: float | None = None,
    max_disk_gb: float | None = None,
    keep_curvature: Path | None = None,
    evaluate: bool = True,
    ask: str | None = None,
    listener: Listener = silent,
) -> Path:
    """Returns `out`. A finished `out` of the very same recipe is returned as it is.

    Raises UsageError and BadInput before the work for what can be known, PreflightRefused when memory or disk do not
    suffice; whatever was finished stays in OUT.partial/. `keep_curvature`: a folder where collections are left for, and
    taken from, other runs on the same weights and text (other bits, formats, rounding).
    """
    out = Path(out)
    job = Job.of(model, settings, listener)
    recipe = {**job.settings, "ask": ask, "evaluate": evaluate}
    if not (fresh or overwrite) and is_finished(out, recipe):
        return out
    check_fits(job, out, max_ram_gb, max_disk_gb)
    with RunFolder(out, recipe, fresh=fresh, overwrite=overwrite) as run:
        both = _both(listener, run.listener)
        snapshot, learnt = curvature_stage.collect(job, run, both, keep_curvature)
        start = time.monotonic()
        records = list(solve(job, run, snapshot, learnt["gate"], both))
        seconds = {**learnt["seconds"], "layers": sum(r["seconds"] for r in records)}
        packed.assemble(run.folder, job.source, job.layers(), _parts(job, run), job.tied_head)
        seconds["assemble"] = max(0.0, time.monotonic() - start - seconds["layers"])
        evidence.gather(job, run, records, learnt["calibration"], seconds, evaluate, ask, both)
        return run.publish()


def solve(
    job: Job, run: RunFolder, snapshot: Snapshot | None, verdicts: Mapping[str, Any], listener: Listener
) -> Iterator[Mapping[str, Any]]:
    """Solve, write and journal every matrix that is not finished yet; yields all records in order."""
    fingerprint = job.fingerprint()
    finished = [run.done(f"layer/{task.name}", fingerprint) for task in job.todo]
    done = sum(record is not None for record in finished)
    pending = track(
        [task for task, record in zip(job.todo, finished, strict=True) if record is None],
        "layers",
        len(job.todo),
        listener,
        done,
    )
    folder = TensorFolder(job.source)
    for index, (task, record) in enumerate(zip(job.todo, finished, strict=True)):
        if record is None:
            assert next(pending) is task
            verdict = verdicts.get(task.name)
            solution = solve_layer(
                task,
                folder.read(f"{task.name}.weight"),
                job.recipe.rounding,
                _factors(job, snapshot, task, verdict),
                job.recipe.transform,
            )
            record = {**solution.record, **_judged(verdict)}
            path = run.work / _part(index)
            write_shard(path, _named(solution))
            run.finish_unit(f"layer/{task.name}", fingerprint, path, record)
        yield record
    next(pending, None)


def _factors(job: Job, snapshot: Snapshot | None, task: Task, verdict: Mapping[str, Any] | None) -> Factors | None:
    if snapshot is None or job.recipe.curvature is None or task.curvature is None:
        return None
    factors = snapshot.factors(job.recipe.curvature, task.curvature)
    return factors if verdict is None or verdict["two_sided"] else factors.one_sided()


def _judged(verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    if verdict is None:
        return {"gate": None, "fallbacks": []}
    refused = [] if verdict["two_sided"] else ["the output side raised the held-out loss: one side used"]
    return {"gate": verdict["ratio"], "fallbacks": refused}


def _named(solution: Solution) -> dict[str, Any]:
    return {f"{solution.task.name}.{key}": tensor for key, tensor in solution.tensors().items()}


def _part(index: int) -> str:
    return f"layer-{index:05d}.safetensors"


def _parts(job: Job, run: RunFolder) -> list[Path]:
    return [run.work / _part(index) for index in range(len(job.todo))]


def _both(first: Listener, second: Listener) -> Listener:
    def tell(event: Any) -> None:
        first(event)
        second(event)

    return tell
