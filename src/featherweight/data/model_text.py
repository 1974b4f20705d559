"""Calibration text that the model writes itself: no data set, no licence, and it lies where the
model's own mass lies.

Sequences are sampled at temperature 1, token by token with a KV cache, a batch at a time. Half
start from nothing (the BOS, or the end-of-text token of a tokenizer that has none), half from the
chat template up to where the user's words begin, so that the model writes the question and then the
answer (the opening of Magpie, Xu et al. 2024). Sampling from the model for calibration is LLM-QAT's
idea (Liu et al. 2023, section 3.1). End tokens are kept and sampled over: every sequence has
exactly `length` tokens.

Cost: `length` forwards of `batch` tokens for each batch, bound by reading the weights. The draw is
seeded on the CPU; logits may round differently with another number of threads, and then a token can
differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ..base.errors import BadInput, UsageError
from ..base.events import Listener, silent, track
from . import packing as seq
from .calibration_set import Calibration, fingerprint
from .tokens import encode, has_template, prefix, template_digest

_MARK = "\N{REPLACEMENT CHARACTER}"


def calibration_from_model(
    model: Any,
    tokenizer: Any,
    count: int = 64,
    length: int = 256,
    seed: int = 0,
    chat: float = 0.5,
    batch: int = 16,
    listener: Listener = silent,
) -> Calibration:
    """`count` unique sequences of `length` tokens, a share `chat` of which starts as a user's turn.

    `model` is a causal language model of transformers on any device; it is left in the mode it was
    found in. Without a chat template everything starts from nothing. Raises UsageError for
    impossible arguments, BadInput when the model's logits are not finite or it repeats itself so
    much that `count` different sequences do not appear.
    """
    if count < 1 or length < 2 or batch < 1 or not 0 <= chat <= 1:
        raise UsageError(
            f"cannot sample {count} sequences of {length} tokens, {batch} at a time, {chat} of them chat"
        )
    chance = torch.Generator().manual_seed(seed)
    templated = has_template(tokenizer) and chat > 0
    openings = {
        "generated": start_of_text(tokenizer),
        "generated_chat": start_of_chat(tokenizer) if templated else [],
    }
    share = chat if templated else 0.0
    shares = {
        name: part
        for name, part in (("generated", 1 - share), ("generated_chat", share))
        if part > 0
    }
    order = seq.schedule(shares, count)
    found: dict[str, list[seq.Ids]] = {}
    batches = [
        (name, min(batch, order.count(name) - done))
        for name in shares
        for done in range(0, order.count(name), batch)
    ]
    for name, size in track(batches, "generate calibration text", len(batches), listener):
        rows = sample(model, openings[name], size, length, chance)
        found.setdefault(name, []).extend(tuple(row) for row in rows.tolist())
    if len({row for rows in found.values() for row in rows}) < count:
        raise BadInput(
            f"the model wrote the same {length} tokens twice among {count} sequences; give a text instead"
        )
    supply = {name: iter(rows) for name, rows in found.items()}
    tokens = torch.tensor([next(supply[name]) for name in order], dtype=torch.int64)
    facts = {
        "seed": seed,
        "bos": bool(prefix(tokenizer)),
        "template": template_digest(tokenizer) if "generated_chat" in found else None,
    }
    licences = dict.fromkeys(shares, "the model's own")
    return Calibration(tokens, tuple(order), fingerprint(tokens, order, licences, facts))


def start_of_text(tokenizer: Any) -> list[int]:
    """What stands before a text in training: what the tokenizer adds, else its BOS, else its
    end-of-text token.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        first = prefix(tokenizer) or ([token] if token is not None else [])
        if first:
            return first
    raise UsageError(
        "this tokenizer has neither a BOS nor an end-of-text token to start a sample from"
    )


def start_of_chat(tokenizer: Any) -> list[int]:
    """The chat template up to where the user's words begin."""
    messages = [{"role": "user", "content": _MARK}]
    rendered = str(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    )
    return encode(tokenizer, rendered[: rendered.index(_MARK)])


@torch.no_grad()
def sample(
    model: Any, opening: Sequence[int], count: int, length: int, chance: torch.Generator
) -> Int64[Tensor, "count length"]:
    """`count` continuations of `opening`, itself included, sampled at temperature 1 up to `length`
    tokens.
    """
    if len(opening) >= length:
        raise UsageError(
            f"sequences of {length} tokens have no room after an opening of {len(opening)}"
        )
    training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        # transformers renames this argument and keeps the old name, with a warning, for a while.
        cache_name = (
            "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
        )
        tokens = torch.tensor([list(opening)] * count, dtype=torch.int64)
        step, cache = tokens, None
        while tokens.shape[1] < length:
            output = model(step.to(device), **{cache_name: cache}, use_cache=True)
            cache = output[cache_name]
            logits = output.logits[:, -1].float().cpu()
            if not bool(torch.isfinite(logits).all()):
                raise BadInput(
                    "the model's logits are not finite, so nothing can be sampled from it"
                )
            step = torch.multinomial(torch.softmax(logits, -1), 1, generator=chance)
            tokens = torch.cat([tokens, step], dim=1)
        return tokens
    finally:
        model.train(training)
