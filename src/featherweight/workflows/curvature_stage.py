"""The curvature stage of a run: curvature is collected in shards, so that a killed run can be
resumed, and then judged on held-out text.

After each shard a snapshot of the running sums is written to work/ in the run folder. A resumed run
continues from the newest snapshot and ends with the same bytes. The held-out sequences are drawn
together with the calibration sequences and are the last of them.
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
from ..interchange import loading
from ..interchange.source import Source
from ..models import structure
from ..quantization import gating
from ..quantization.curvature import storage
from ..quantization.curvature.base import Sums
from .quantize_run import QuantizeRun

SHARD = 32  # sequences


def load_for_passes(source: Source) -> tuple[nn.Module, Any]:
    """The model and its tokenizer. The model is in float32, or in its own dtype when float32 would
    take more than a third of the machine's memory.

    In the second case the passes convert one block at a time to float32; embedding, head and the
    last norm are always float32.
    """
    if 4 * source.anatomy.num_parameters * 3 <= total_memory_bytes():
        return loading.load(source.path, dtype=torch.float32)
    model, tokenizer = loading.load(source.path, dtype=None)
    in_blocks = {id(p) for _, block in structure.blocks(model) for p in block.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in in_blocks:
            parameter.data = parameter.data.float()
    return model, tokenizer


def calibration_of(run: QuantizeRun, tokenizer: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The sequences for the collection, the held-out sequences, and the fingerprint of all of
    them.
    """
    settings, gate = run.settings["calibration"], run.settings["gate"]
    count = settings["count"] + (gate["count"] if gate else 0)
    length, seed = settings["length"], settings["seed"]
    if settings["files"]:
        files = [Path(file) for file in settings["files"]]
        text = calibration_from_files(tokenizer, *files, count=count, length=length, seed=seed)
    else:
        shares = mix(settings["mix"]) if isinstance(settings["mix"], str) else settings["mix"]
        text = calibration(tokenizer, count, length, seed, shares)
    _check_in_table(text.tokens, run.source, tokenizer)
    return text.tokens[: settings["count"]], text.tokens[settings["count"] :], text.fingerprint


def _check_in_table(tokens: Tensor, source: Source, tokenizer: Any) -> None:
    """Raise BadInput when the text holds a token without a row in the embedding."""
    num_rows, largest_id = source.anatomy.embedding_shape[0], int(tokens.max())
    if largest_id >= num_rows:
        raise BadInput(
            f"{source.path}: the calibration text holds the token "
            f"{tokenizer.decode([largest_id])!r} with the id {largest_id}, and the embedding has "
            f"{num_rows} rows; resize the embedding, or take the token out of the chat template"
        )


def collect(
    run: QuantizeRun, folder: RunFolder, listener: Listener, keep: Path | None = None
) -> tuple[storage.Snapshot | None, dict[str, Any]]:
    """The finished collection (None when the recipe collects no curvature), and its record with the
    keys `calibration`, `gate` and `seconds`.

    keep: a folder of collections that runs share. A collection from the same weights, method and
    text in it is used; otherwise the new collection is copied there.
    """
    method = run.recipe.curvature
    if method is None:
        return None, {"calibration": {}, "gate": {}, "seconds": {}}
    fingerprint = run.layer_fingerprint()
    record = folder.done("curvature", fingerprint)
    if record is not None:
        return storage.Snapshot(folder.folder / record["path"]), record
    model, tokenizer = load_for_passes(run.source)
    tokens, held_out, text_fingerprint = calibration_of(run, tokenizer)
    collection = run.curvature_fingerprint()
    shared_file = None if keep is None else keep / f"curvature-{collection[:16]}.safetensors"
    if shared_file is not None and shared_file.exists():
        _adopt(collection, folder, shared_file, fingerprint, len(tokens))
    path, seconds = _accumulate(run, folder, model, tokens, collection, listener)
    if shared_file is not None and not shared_file.exists():
        shared_file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(shared_file, lambda temporary: shutil.copyfile(path, temporary))
    snapshot = storage.Snapshot(path)
    start = time.monotonic()
    verdicts: dict[str, Any] = {}
    if len(held_out):
        verdicts = gating.judge(
            model,
            held_out,
            lambda name: snapshot.factors(method, name),
            run.layer_plans,
            run.recipe.rounding,
            run.recipe.transform,
            listener,
        )
    record = {
        "path": str(path.relative_to(folder.folder)),
        "calibration": text_fingerprint,
        "gate": verdicts,
        "seconds": {"curvature": seconds, "gate": time.monotonic() - start},
    }
    folder.finish_unit("curvature", fingerprint, None, record)
    return snapshot, record


def _accumulate(
    run: QuantizeRun,
    folder: RunFolder,
    model: nn.Module,
    tokens: Tensor,
    collection: str,
    listener: Listener,
) -> tuple[Path, float]:
    """Collect the missing shards. Returns the path of the snapshot of all sequences, and the
    seconds that all shards took, those of earlier runs included.
    """
    assert run.recipe.curvature is not None
    fingerprint = run.layer_fingerprint()
    sums, earlier_seconds, path = _newest(folder, fingerprint, len(tokens))
    start = time.monotonic()
    while sums.sequences < len(tokens):
        begin = sums.sequences
        indices = range(begin, min(begin + SHARD, len(tokens)))
        progress = _as_part(listener, begin, len(tokens), start)
        run.recipe.curvature.accumulate(model, tokens, indices, sums, progress)
        seconds = earlier_seconds + time.monotonic() - start
        older, path = path, folder.work / f"curvature-{sums.sequences:06d}.safetensors"
        storage.save(sums, path, collection)
        folder.finish_unit(
            f"curvature/{sums.sequences:06d}", fingerprint, path, {"seconds": seconds}
        )
        if older is not None:
            older.unlink(missing_ok=True)
    assert path is not None
    return path, earlier_seconds + time.monotonic() - start


def _adopt(
    collection: str, folder: RunFolder, shared_file: Path, fingerprint: str, total: int
) -> None:
    """Copy a shared collection into the run folder as this run's own finished collection."""
    snapshot = storage.Snapshot(shared_file)
    if snapshot.fingerprint != collection or snapshot.sequences != total:
        raise BadInput(
            f"{shared_file} holds another collection than its name says; delete it to collect again"
        )
    path = folder.work / f"curvature-{total:06d}.safetensors"
    write_atomic(path, lambda temporary: shutil.copyfile(shared_file, temporary))
    folder.finish_unit(f"curvature/{total:06d}", fingerprint, path, {"seconds": 0.0})


def _newest(folder: RunFolder, fingerprint: str, total: int) -> tuple[Sums, float, Path | None]:
    """Sums, seconds and file of the newest snapshot of this run; empty sums when there is none."""
    for path in sorted(folder.work.glob("curvature-*.safetensors"), reverse=True):
        record = folder.done(f"curvature/{path.stem.split('-')[1]}", fingerprint)
        if record is not None and int(path.stem.split("-")[1]) <= total:
            return storage.Snapshot(path).sums(), record["seconds"], path
    return Sums(), 0.0, None


def _as_part(listener: Listener, begin: int, total: int, start: float) -> Listener:
    """A listener that turns the events of one shard into events of the whole collection."""

    def receive(event: Event) -> None:
        num_new = (
            round((event.done / event.total) * min(SHARD, total - begin)) if event.total else 0
        )
        num_done = begin + num_new
        pace = event.seconds / num_new if num_new else None
        eta_seconds = None if pace is None else pace * (total - num_done)
        listener(Event("curvature", num_done, total, time.monotonic() - start, eta_seconds))

    return receive
