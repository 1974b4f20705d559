"""The evidence of a run: results.json, report.html and the model card in the folder of the weights.

Both models are evaluated over the same windows in float32 (`quality.py`), and answer the same
prompts (`free_running.py`). Every figure in the page and in the card comes from results.json.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from ..base import machine
from ..base.errors import BadInput
from ..base.events import Listener
from ..base.files import write_atomic
from ..base.ledger import bpw_file
from ..base.run_folder import RunFolder
from ..data import text, windows
from ..interchange.source import Source
from ..interchange.tokenizer_check import load_tokenizer
from ..models.tensors import TensorFolder
from ..quantization.evidence import card, report
from ..quantization.evidence.results import load_results, write_results
from .free_running import checked_prompts, free_running
from .published import published_size
from .quality import APART_WARNING, measure_apart, measure_together
from .quantize_run import QuantizeRun


def gather(
    run: QuantizeRun,
    folder: RunFolder,
    records: Sequence[Mapping[str, Any]],
    calibration: Mapping[str, Any],
    seconds: dict[str, float],
    with_quality: bool,
    ask: str | None,
    listener: Listener,
    in_turns: bool = False,
) -> None:
    """Measure quality, for `with_quality`, and write results.json, report.html and README.md into
    the run's folder.

    records: of the layers; seconds: by stage, to which that of the evaluation is added; ask: a
    question that both models answer; in_turns: whether only one model fits into memory at a time.
    """
    results: dict[str, Any] = {
        "model": model_facts(run.source),
        "recipe": dict(run.settings),
        "size": size(run, folder.folder),
        "layers": [dict(record) for record in records],
        "calibration": dict(calibration),
        "warnings": warnings(records),
        "samples": [],
    }
    if with_quality:
        start = time.monotonic()
        results.update(measure(run, folder, records, ask, listener, in_turns))
        check_seconds = sum(results.get("free_running", {}).get("seconds", {}).values())
        seconds["evaluate"] = time.monotonic() - start - check_seconds
        seconds["free running"] = check_seconds
    results["seconds"] = {stage: round(value, 2) for stage, value in seconds.items()}
    results["peak_memory_bytes"] = machine.peak_memory_bytes()
    results["machine"] = machine.describe()
    results["versions"] = machine.versions()
    write_results(results, folder.folder)
    publish_pages(results, folder.folder)


def record(folder: Path, entries: Mapping[str, Any]) -> None:
    """Let results.json of a packed folder say `entries` too, and make its pages again."""
    results = {**load_results(folder), **entries}
    write_results(results, folder)
    publish_pages(results, folder)


def publish_pages(results: Mapping[str, Any] | Path, folder: Path) -> list[Path]:
    """report.html and the model card, README.md."""
    page = report(results, folder)
    write_atomic(folder / "README.md", card(results))
    return [page, folder / "README.md"]


def model_facts(source: Source) -> dict[str, Any]:
    """What the original is, and its size: of the source's files and as it was published.

    `published_dtype` and `published_bytes` are what a user had before. They differ from the
    source's files where those are a conversion: a bundled model was published in the dtype that its
    record names, a GGUF file as it is. Otherwise the dtype is that of config.json, or that of most
    weights where config.json names none.
    """
    source_bytes, num_parameters = source.weights.file_bytes, source.anatomy.num_parameters
    dtype, published_bytes = published_size(source)
    return {
        "name": source.display_name,
        "base_model": source.repository,
        "num_parameters": num_parameters,
        "source_file_bytes": source_bytes,
        "source_bits": bpw_file(source_bytes, num_parameters),
        "published_dtype": dtype,
        "published_bytes": published_bytes,
        "published_bits": bpw_file(published_bytes, num_parameters),
        "licence": source.licence,
    }


def size(run: QuantizeRun, folder: Path) -> dict[str, Any]:
    """The ledger: three figures of bits per weight over the same model, and what the bytes are
    spent on.
    """
    ledger, in_blocks = run.ledger(), run.ledger(blocks_only=True)
    file_bytes = TensorFolder(folder).file_bytes
    parts = {kind: bits // 8 for kind, bits in ledger.bits_by_kind.items() if bits}
    return {
        "file_bytes": file_bytes,
        "bpw_codes": ledger.bpw_codes,
        "bpw_layers": ledger.bpw_layers,
        "bpw_file": bpw_file(file_bytes, run.source.anatomy.num_parameters),
        "bpw_codes_blocks": in_blocks.bpw_codes,
        "bpw_layers_blocks": in_blocks.bpw_layers,
        "bytes": {**parts, "other": file_bytes - sum(parts.values())},
    }


def warnings(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every fallback, in words."""
    return [
        f"{record['name']}: {fallback}"
        for record in records
        for fallback in record.get("fallbacks", ())
    ]


def measure(
    run: QuantizeRun,
    folder: RunFolder,
    records: Sequence[Mapping[str, Any]],
    ask: str | None,
    listener: Listener,
    in_turns: bool,
) -> dict[str, Any]:
    """What the evaluation adds to results.json. The arguments are those of `gather`."""
    tokens, settings = evaluation_windows(run), run.settings["evaluation"]
    if in_turns:
        work = folder.work / "original_answers"
        entries = measure_apart(run, folder.folder, tokens, work, ask, listener)
        entries["warnings"] = [*warnings(records), APART_WARNING]
    else:
        entries = measure_together(run, folder.folder, tokens, records, ask, listener)
    if settings["prompts"]:
        light = Source(str(folder.folder), folder.folder)
        entries["free_running"] = free_running(
            run.source, light, settings["prompts"], settings["answer_tokens"], listener
        )
    return entries


def check_evaluation(run: QuantizeRun) -> None:
    """Raise, before the work, what the evaluation would raise after it: for a text that cannot be
    read or is too short, for impossible settings, and for prompts that the model's chat template
    refuses.
    """
    settings = run.settings["evaluation"]
    if settings["prompts"]:
        checked_prompts(run.source, settings["prompts"], settings["answer_tokens"])
    evaluation_windows(run)


def evaluation_windows(run: QuantizeRun) -> Int64[Tensor, "count length_plus_1"]:
    """The tokens that the recipe's evaluation reads.

    Raises BadInput when the text cannot be read, or has fewer windows than the recipe wants,
    UsageError when they should start with a BOS that the tokenizer does not have.
    """
    settings = run.settings["evaluation"]
    content = read_text(settings["text"])
    tokenizer = load_tokenizer(run.source.path)
    return windows(tokenizer, content, settings["length"], settings["windows"], settings["bos"])


def read_text(name: str) -> str:
    """The content of a text file, or of a text that comes with the package.

    Raises BadInput for a file that cannot be read, UsageError for an unknown name.
    """
    path = Path(name)
    if path.suffix or path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"the text {name} cannot be read: {error}") from error
    return text(name)
