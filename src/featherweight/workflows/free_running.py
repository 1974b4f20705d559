"""The free-running check of two model folders: both answer the same prompts, one after the other.

Only one of the models is in memory at a time. The original's answers are kept in the cache, by a
hash of everything that they depend on: its weights, its tokenizer, the prompts' tokens and the
largest number of tokens. So the second quantization of a model does not pay for them again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base.errors import BadInput, UsageError
from ..base.events import Listener, silent
from ..base.files import write_atomic
from ..data.prompts import Prompt, load_prompts
from ..evaluation.free_running import FreeAnswer, answer_freely, compare_answers, encode_prompts
from ..inference.text.tokenizer import ChatTokenizer
from ..interchange.cache import cache_folder
from ..interchange.source import Source
from ..interchange.tokenizer_check import load_tokenizer
from .engines import open_weights

log = logging.getLogger(__name__)
# Changes when answers of an earlier version must not be used any more.
CACHE_VERSION = 1


def free_running(
    original: Source, light: Source, prompts: int, max_tokens: int, listener: Listener = silent
) -> dict[str, Any]:
    """The entry `free_running` of results.json.

    Args: prompts, how many of `data.prompts`; max_tokens, of an answer, at most half of the
    original's context; listener, receives an event for each answer. Raises UsageError for
    impossible settings and for models of different tokenizers or chat templates.
    """
    texts = checked_prompts(original, prompts, max_tokens)
    tokenizer = ChatTokenizer.open(light.path)
    ids = encode_prompts(tokenizer, texts)
    if ids != encode_prompts(_own_tokenizer(original), texts):
        raise UsageError(
            f"{original.display_name} and {light.display_name} have different tokenizers or chat "
            "templates; the check compares answers to the same tokens"
        )
    cap = max_tokens if original.context is None else min(max_tokens, original.context // 2)
    start = time.monotonic()
    originals, facts = _original_answers(original, tokenizer, ids, cap, listener)
    middle = time.monotonic()
    lights, light_engine = _answers(light, tokenizer, ids, cap, "light answers", listener)
    entry = compare_answers(texts, originals, lights, with_forms=tokenizer.has_template)
    return entry | {
        "max_tokens": cap,
        "engines": {"original": facts["engine"], "light": light_engine},
        "seconds": {
            "original": round(middle - start, 2),
            "light": round(time.monotonic() - middle, 2),
        },
        "original_cached": facts["cached"],
    }


def checked_prompts(source: Source, prompts: int, max_tokens: int) -> list[Prompt]:
    """The prompts. Raises UsageError for impossible settings, and when the model's chat template
    refuses a prompt.
    """
    if prompts < 1 or max_tokens < 1:
        raise UsageError(f"{prompts} prompts with answers of {max_tokens} tokens: at least 1")
    texts = load_prompts(prompts)
    encode_prompts(_own_tokenizer(source), texts)
    return texts


def _own_tokenizer(source: Source) -> ChatTokenizer:
    """The tokenizer of an original, whose folder may lack a tokenizer.json."""
    return ChatTokenizer.of(load_tokenizer(source.path))


def _answers(
    source: Source,
    tokenizer: ChatTokenizer,
    prompts: Sequence[list[int]],
    max_tokens: int,
    stage: str,
    listener: Listener,
) -> tuple[list[FreeAnswer], str]:
    """The answers of a model and the description of the engine that gave them."""
    engine = open_weights(source)
    try:
        answers = answer_freely(engine, tokenizer, prompts, max_tokens, stage, listener)
        return answers, engine.description
    finally:
        engine.close()


def _original_answers(
    source: Source,
    tokenizer: ChatTokenizer,
    prompts: Sequence[list[int]],
    max_tokens: int,
    listener: Listener,
) -> tuple[list[FreeAnswer], dict[str, Any]]:
    """The answers of the original, from the cache where they are, and how they came about."""
    dependencies = [
        CACHE_VERSION,
        source.fingerprint,
        hashlib.sha256(tokenizer.tokenizer_json.encode()).hexdigest(),
        sorted(tokenizer.end_ids),
        prompts,
        max_tokens,
    ]
    key = hashlib.sha256(json.dumps(dependencies).encode()).hexdigest()
    path = cache_folder() / "free_running" / f"{key[:32]}.json"
    if (entry := _read(path, len(prompts))) is not None:
        return entry[0], {"engine": entry[1], "cached": True}
    answers, engine = _answers(source, tokenizer, prompts, max_tokens, "original answers", listener)
    content = {"engine": engine, "answers": [dataclasses.asdict(answer) for answer in answers]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(content))
    except (OSError, BadInput) as error:
        # A full or read-only cache costs the next run some time, not this one its results.
        log.warning("the original's answers are not kept for the next run: %s", error)
    return answers, {"engine": engine, "cached": False}


def _read(path: Path, count: int) -> tuple[list[FreeAnswer], str] | None:
    """The answers in a file of the cache; None when there are none, or not `count` whole ones."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        answers = [
            FreeAnswer(str(row["text"]), tuple(map(int, row["tokens"])), bool(row["is_endless"]))
            for row in content["answers"]
        ]
        engine = str(content["engine"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (answers, engine) if len(answers) == count else None
