"""The run's curvature: collected in shards that survive a kill, then judged on held-out text.

A shard ends in a snapshot of the running sums in the run folder's work/; resuming starts from the newest one, with the
same bytes at the end. The held-out sequences come from the same calibration draw, after the ones that are collected.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import BadInput
from ..base.events import Event, Listener
from ..base.files import write_atomic
from ..base.machine import total_memory_bytes
from ..base.run_folder import RunFolder
from ..data import calibration, calibration_from_files
from ..data.mixes import mix
from ..interchange import sources
from ..models import structure
from ..quantization import gating
from ..quantization.curvature import storage
from ..quantization.curvature.base import Sums
from .job import Job

SHARD = 32


def load_for_passes(source: Path, num_parameters: int) -> tuple[nn.Module, Any]:
    """The model in float32, or, when that would take over a third of the memory, as stored with its blocks widened
    one at a time during passes (embedding, head and norms are float32 all the same)."""
    if 4 * num_parameters * 3 <= total_memory_bytes():
        return sources.load(source, dtype=torch.float32)
    model, tokenizer = sources.load(source, dtype=None)
    inside = {id(p) for _, block in structure.blocks(model) for p in block.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in inside:
            parameter.data = parameter.data.float()
    return model, tokenizer


def calibration_of(job: Job, tokenizer: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """(collected sequences, held-out sequences, fingerprint of all of them)."""
    wanted = job.settings["calibration"]
    gate = job.settings["gate"]
    held_out = gate["count"] if gate else 0
    count = wanted["count"] + held_out
    if wanted["files"]:
        files = [Path(f) for f in wanted["files"]]
        found = calibration_from_files(tokenizer, *files, count=count, length=wanted["length"], seed=wanted["seed"])
    else:
        shares = mix(wanted["mix"]) if isinstance(wanted["mix"], str) else wanted["mix"]
        found = calibration(tokenizer, count, wanted["length"], wanted["seed"], shares)
    return found.tokens[: wanted["count"]], found.tokens[wanted["count"] :], found.fingerprint


def collect(
    job: Job, run: RunFolder, listener: Listener, keep: Path | None = None
) -> tuple[storage.Snapshot | None, dict[str, Any]]:
    """The finished collection (None when the recipe needs none) and what was learnt: calibration, gate, seconds.

    In the folder `keep` a collection from the same weights, method and text is looked for, and otherwise left.
    """
    method = job.recipe.curvature
    if method is None:
        return None, {"calibration": {}, "gate": {}, "seconds": {}}
    fingerprint = job.fingerprint()
    done = run.done("curvature", fingerprint)
    if done is not None:
        return storage.Snapshot(run.folder / done["path"]), done
    model, tokenizer = load_for_passes(job.source, job.num_parameters)
    tokens, held_out, about = calibration_of(job, tokenizer)
    own = job.collection_fingerprint()
    kept = None if keep is None else keep / f"curvature-{own[:16]}.safetensors"
    if kept is not None and kept.exists():
        _adopt(own, run, kept, fingerprint, len(tokens))
    sums, seconds, path = _newest(run, fingerprint, len(tokens))
    start = time.monotonic()
    while sums.sequences < len(tokens):
        begin = sums.sequences
        indices = range(begin, min(begin + SHARD, len(tokens)))
        method.accumulate(model, tokens, indices, sums, _whole(listener, begin, len(tokens), start))
        spent = seconds + time.monotonic() - start
        older, path = path, run.work / f"curvature-{sums.sequences:06d}.safetensors"
        storage.save(sums, path, own)
        run.finish_unit(f"curvature/{sums.sequences:06d}", fingerprint, path, {"seconds": spent})
        if older is not None:
            older.unlink(missing_ok=True)
    seconds += time.monotonic() - start
    assert path is not None
    if kept is not None and not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, lambda temporary: shutil.copyfile(path, temporary))
    snapshot = storage.Snapshot(path)
    start = time.monotonic()
    verdicts: dict[str, Any] = {}
    if len(held_out):
        verdicts = gating.judge(
            model,
            held_out,
            lambda name: snapshot.factors(method, name),
            job.todo,
            job.recipe.rounding,
            job.recipe.transform,
            listener,
        )
    record = {
        "path": str(path.relative_to(run.folder)),
        "calibration": about,
        "gate": verdicts,
        "seconds": {"curvature": seconds, "gate": time.monotonic() - start},
    }
    run.finish_unit("curvature", fingerprint, None, record)
    return snapshot, record


def _adopt(own: str, run: RunFolder, kept: Path, fingerprint: str, total: int) -> None:
    """Put a kept collection where a finished one of this run would lie."""
    found = storage.Snapshot(kept)
    if found.fingerprint != own or found.sequences != total:
        raise BadInput(f"{kept} holds another collection than its name says; delete it to collect again")
    path = run.work / f"curvature-{total:06d}.safetensors"
    write_atomic(path, lambda temporary: shutil.copyfile(kept, temporary))
    run.finish_unit(f"curvature/{total:06d}", fingerprint, path, {"seconds": 0.0})


def _newest(run: RunFolder, fingerprint: str, total: int) -> tuple[Sums, float, Path | None]:
    for path in sorted(run.work.glob("curvature-*.safetensors"), reverse=True):
        record = run.done(f"curvature/{path.stem.split('-')[1]}", fingerprint)
        if record is not None and int(path.stem.split("-")[1]) <= total:
            return storage.Snapshot(path).sums(), record["seconds"], path
    return Sums(), 0.0, None


def _whole(listener: Listener, begin: int, total: int, start: float) -> Listener:
    """Events of one shard as progress of the whole collection."""

    def show(event: Event) -> None:
        done = begin + round((event.done / event.total) * min(SHARD, total - begin)) if event.total else begin
        seconds = time.monotonic() - start
        fresh = max(done - begin, 0)
        pace = event.seconds / fresh if fresh else None
        listener(Event("curvature", done, total, seconds, None if pace is None else pace * (total - done)))

    return show
