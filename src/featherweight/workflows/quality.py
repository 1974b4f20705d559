"""The quality of a run: KL, perplexity, agreement, blame by block and the answers to a question.

`measure_together` loads the original and the light model side by side. Where both do not fit into
memory, `measure_apart` lets the original answer the windows first, keeps its logits on disk in
float16, releases it, and then compares the light model with the answers. The KL differs by the
rounding of the logits (about 3e-6 nats for SmolLM2). The KL of single blocks needs both models at
once and is left out.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ..base.events import Listener
from ..data import first_tokens
from ..evaluation import KL, Perplexity, block_kl, evaluate, predicted_by_block, with_block_kl
from ..inference import ChatTokenizer, answer
from ..inference.reference import ReferenceEngine
from ..interchange import loading
from ..interchange.packed import folder as packed_folder
from ..models.answers import Answers, Full, write_answers
from ..quantization.layers import keep_decoded
from .quantize_run import QuantizeRun

KEPT = Full("float16")
APART_WARNING = (
    "original and light model did not fit into memory together: the original answered the text "
    "first, its logits were kept in float16, and the KL of single blocks was not measured"
)
Windows = Int64[Tensor, "count length_plus_1"]


def measure_together(
    run: QuantizeRun,
    folder: Path,
    tokens: Windows,
    records: Sequence[Mapping[str, Any]],
    ask: str | None,
    listener: Listener,
) -> dict[str, Any]:
    """The entries `quality`, `layers` and `samples` of results.json, with both models in memory.

    folder: of the light model; tokens: the windows; records: of the layers; ask: a question that
    both models answer.
    """
    settings = run.settings["evaluation"]
    original, tokenizer = loading.load(run.source.path, dtype=torch.float32)
    light = packed_folder.load(folder, dtype=torch.float32)
    content = _content(run, tokens, tokenizer)
    with keep_decoded(light):
        quality = evaluate(light, [Perplexity(*content), KL(original, *content)], listener).quality
        quality["kl_self"] = _control(original, *content)
        blame = block_kl(
            original,
            light,
            tokens[: min(2, len(tokens)), :513],
            settings["blocks_seconds"],
            predicted_by_block(records, run.source.anatomy.blocks),
            listener,
        )
        answers = [_answer(model, tokenizer, ask) for model in (original, light)]
    layers = with_block_kl(records, blame)
    return {"quality": quality, "layers": layers, "samples": _samples(ask, *answers)}


def measure_apart(
    run: QuantizeRun,
    folder: Path,
    tokens: Windows,
    work: Path,
    ask: str | None,
    listener: Listener,
) -> dict[str, Any]:
    """The entries `quality` and `samples`, with one model in memory at a time.

    work: a folder for the original's answers, which are deleted at the end. Other arguments as in
    `measure_together`.
    """
    answers, kl_self, original_answer = _original_part(run, tokens, work, ask, listener)
    # Models have circles of references, so the memory of the original is free only after this.
    gc.collect()
    light, tokenizer = loading.load(folder, dtype=torch.float32)
    content = _content(run, tokens, tokenizer)
    with keep_decoded(light):
        quality = evaluate(light, [Perplexity(*content), KL(answers, *content)], listener).quality
        samples = _samples(ask, original_answer, _answer(light, tokenizer, ask))
    shutil.rmtree(work)
    return {"quality": {**quality, "kl_self": kl_self}, "samples": samples}


def answers_bytes(run: QuantizeRun) -> int:
    """The disk space that `measure_apart` needs for the original's answers."""
    settings, vocabulary = run.settings["evaluation"], run.source.anatomy.vocabulary
    num_tokens: int = settings["windows"] * settings["length"]
    return num_tokens * KEPT.bytes_per_position(vocabulary)


def _original_part(
    run: QuantizeRun, tokens: Windows, work: Path, ask: str | None, listener: Listener
) -> tuple[Answers, float, str]:
    """What is measured of the original alone: its answers about the windows, the control, and its
    answer to the question.
    """
    original, tokenizer = loading.load(run.source.path, dtype=torch.float32)
    _, name, bos = content = _content(run, tokens, tokenizer)
    answers = write_answers(
        original,
        tokens,
        work,
        KEPT,
        tokenizer=tokenizer,
        model_id=run.source.fingerprint,
        name=run.source.display_name,
        text_name=name,
        bos=bos,
        listener=listener,
    )
    return answers, _control(original, *content), _answer(original, tokenizer, ask)


def _content(run: QuantizeRun, tokens: Windows, tokenizer: Any) -> tuple[Windows, str, bool]:
    """The windows, the name of their text, and whether each starts with a BOS."""
    settings = run.settings["evaluation"]
    return tokens, settings["text"], bool(first_tokens(tokenizer, settings["bos"]))


def _control(original: Any, tokens: Windows, name: str, bos: bool) -> float:
    """The KL of the original with itself, which must be 0."""
    control = evaluate(original, [KL(original, tokens[:1, :257], name, bos)])
    return float(control.quality["kl"]["mean"])


def _answer(model: Any, tokenizer: Any, question: str | None) -> str:
    """One greedy answer of a model in memory; "" without a question."""
    if question is None:
        return ""
    engine = ReferenceEngine(model, fingerprint="in memory", description="in memory")
    try:
        return answer(engine, ChatTokenizer.of(tokenizer), question)
    finally:
        engine.close()


def _samples(ask: str | None, original: str, light: str) -> list[dict[str, str]]:
    return [] if ask is None else [{"question": ask, "original": original, "light": light}]
