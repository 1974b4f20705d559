"""The shell's `quantize`: turns a model folder into a packed folder with its report.

    find the source -> plan -> preflight -> curvature -> gate -> layers -> assemble -> evaluate ->
    report -> one rename

Intermediate files are in OUT.partial/, and each finished unit of work is noted in a journal. The
same command continues a killed run, and ends with the same bytes of weights and config. While
layers are solved, one matrix and its factors are in memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..base.errors import EvidenceFailed, UsageError
from ..base.events import Listener, send_to, silent, track
from ..base.run_folder import RunFolder, is_finished
from ..interchange.packed.folder import assemble
from ..models.tensors import write_shard
from ..quantization.curvature.base import Factors
from ..quantization.curvature.storage import Snapshot
from ..quantization.pipeline import LayerPlan, LayerResult, solve_layer
from . import curvature_stage, evidence
from .preflight import check_fits, check_lengths
from .quantize_run import QuantizeRun

# Keys of the recipe that no weight depends on: a run may be resumed with other values.
EVIDENCE_KEYS = ("evaluation", "ask", "evaluate")


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
    """Quantize `model` by the recipe `settings` into the folder `out`, and return `out`.

    model: an alias, folder, GGUF file or hub id. settings: the keys of a recipe
    (`quantization/recipes.py`). fresh: discard an unfinished run. overwrite: replace `out`. Without
    these two, a finished `out` of the same recipe is returned unchanged. max_ram_gb, max_disk_gb:
    refuse a run that needs more. keep_curvature: a folder of curvature collections that runs with
    the same weights and text but other bits, formats or rounding share. evaluate: measure the
    quality. ask: a question that both models answer at the end. listener: receives all events.

    Raises UsageError and BadInput for problems that are found before the work, PreflightRefused
    when memory or disk space do not suffice. Finished units of work stay in OUT.partial/.
    """
    out = Path(out)
    run = QuantizeRun.of(model, settings, listener)
    recipe = {**run.settings, "ask": ask, "evaluate": evaluate}
    if not (fresh or overwrite) and _is_finished(out, recipe, str(model)):
        return out
    check_lengths(run, evaluate)
    if evaluate:
        evidence.check_evaluation(run)
    need = check_fits(run, out, max_ram_gb, max_disk_gb)
    with RunFolder(
        out, recipe, fresh=fresh, overwrite=overwrite, free_keys=EVIDENCE_KEYS
    ) as folder:
        send = send_to(listener, folder.listener)
        snapshot, collection = curvature_stage.collect(run, folder, send, keep_curvature)
        start = time.monotonic()
        records = list(solve(run, folder, snapshot, collection["gate"], send))
        seconds = {**collection["seconds"], "layers": sum(record["seconds"] for record in records)}
        assemble(folder.folder, run.source, run.matrices(), _part_files(run, folder), run.tied_head)
        seconds["assemble"] = max(0.0, time.monotonic() - start - seconds["layers"])
        facts = (run, folder, records, collection["calibration"], seconds)
        try:
            evidence.gather(*facts, evaluate, ask, send, need.in_turns)
        except Exception as error:
            # The weights are not lost to what is measured with them.
            folder.change_recipe({**recipe, "evaluate": False, "ask": None})
            evidence.gather(*facts, False, None, send)
            folder.publish()
            raise EvidenceFailed(
                f"{out} is finished and can be used, but its evaluation failed: {error}. "
                f"`fw evaluate {out} --against {model} --record` measures it and writes the page"
            ) from error
        return folder.publish()


def _is_finished(out: Path, recipe: Mapping[str, Any], model: str) -> bool:
    """Whether `out` is the finished result of `recipe`.

    Raises UsageError when only the evaluation differs: the weights need not be made again.
    """
    if is_finished(out, recipe):
        return True
    if is_finished(out, recipe, EVIDENCE_KEYS):
        raise UsageError(
            f"{out} holds the finished weights of this recipe; only what is measured differs. "
            f"`fw evaluate {out} --against {model} --record` measures it, --overwrite makes all "
            "again"
        )
    return False


def solve(
    run: QuantizeRun,
    folder: RunFolder,
    snapshot: Snapshot | None,
    verdicts: Mapping[str, Any],
    listener: Listener,
) -> Iterator[Mapping[str, Any]]:
    """Solve every matrix that is not finished yet, write it and note it in the journal. Yields the
    records of all matrices in order.
    """
    fingerprint = run.layer_fingerprint()
    journal = [folder.done(f"layer/{plan.name}", fingerprint) for plan in run.layer_plans]
    num_finished = sum(record is not None for record in journal)
    remaining_plans = track(
        [plan for plan, record in zip(run.layer_plans, journal, strict=True) if record is None],
        "layers",
        len(run.layer_plans),
        listener,
        num_finished,
    )
    for index, (plan, record) in enumerate(zip(run.layer_plans, journal, strict=True)):
        if record is None:
            assert next(remaining_plans) is plan
            verdict = verdicts.get(plan.name)
            result = solve_layer(
                plan,
                run.source.weights.read(f"{plan.name}.weight"),
                run.recipe.rounding,
                _factors(run, snapshot, plan, verdict),
                run.recipe.transform,
            )
            entries = _gate_entries(verdict)
            entries["fallbacks"] += plan.notes
            record = {**result.record, **entries}
            path = folder.work / _part_name(index)
            write_shard(path, _full_names(result))
            folder.finish_unit(f"layer/{plan.name}", fingerprint, path, record)
        yield record
    next(remaining_plans, None)


def _factors(
    run: QuantizeRun, snapshot: Snapshot | None, plan: LayerPlan, verdict: Mapping[str, Any] | None
) -> Factors | None:
    if snapshot is None or run.recipe.curvature is None or plan.curvature is None:
        return None
    factors = snapshot.factors(run.recipe.curvature, plan.curvature)
    return factors if verdict is None or verdict["two_sided"] else factors.one_sided()


def _gate_entries(verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entries of a layer's record about its gate."""
    if verdict is None:
        return {"gate": None, "fallbacks": []}
    fallbacks = (
        [] if verdict["two_sided"] else ["the output side raised the held-out loss: one side used"]
    )
    return {"gate": verdict["ratio"], "fallbacks": fallbacks}


def _full_names(result: LayerResult) -> dict[str, Any]:
    return {f"{result.layer_plan.name}.{key}": tensor for key, tensor in result.tensors().items()}


def _part_name(index: int) -> str:
    return f"layer-{index:05d}.safetensors"


def _part_files(run: QuantizeRun, folder: RunFolder) -> list[Path]:
    return [folder.work / _part_name(index) for index in range(len(run.layer_plans))]
