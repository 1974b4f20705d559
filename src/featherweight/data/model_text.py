"""Calibration text that the model writes itself. It needs no data set and no licence, and has the
model's own distribution.

Sequences are sampled at temperature 1, token by token with a KV cache, one batch at a time. Half of
them start with the BOS token only (or the end-of-text token of a tokenizer without a BOS). The
other half start with the chat template up to the point where the user's words begin, so that the
model writes the question and then the answer (Magpie, Xu et al. 2024). Sampling calibration text
from the model is the method of LLM-QAT (Liu et al. 2023, section 3.1). Sampling continues after an
end token, because every sequence must have exactly `length` tokens.

Cost: `length` forward passes of `batch` tokens for each batch; their time is that of reading the
weights. The samples are drawn on the CPU from the seed. With another number of threads, logits may
be rounded differently, and then a token can differ.
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
from . import packing
from .calibration_set import Calibration, fingerprint
from .tokens import encode, has_template, prefix, template_digest

_PLACEHOLDER = "\N{REPLACEMENT CHARACTER}"


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
    """A calibration set of text that the model writes.

    Args: model, a causal language model of transformers on any device, whose mode (training or
    evaluation) is restored; tokenizer; count, the number of sequences, all different; length, the
    tokens of each; seed; chat, the share of sequences that start as a user's turn (0 without a chat
    template); batch, sequences that are sampled at once. Raises UsageError for impossible
    arguments, BadInput when the model's logits are not finite, or when it repeats itself so often
    that `count` sequences are not all different.
    """
    if count < 1 or length < 2 or batch < 1 or not 0 <= chat <= 1:
        raise UsageError(
            f"cannot sample {count} sequences of {length} tokens, {batch} at a time, "
            f"{chat} of them chat"
        )
    generator = torch.Generator().manual_seed(seed)
    chat_share = chat if has_template(tokenizer) else 0.0
    openings = {
        "generated": start_of_text(tokenizer),
        "generated_chat": start_of_chat(tokenizer) if chat_share > 0 else [],
    }
    shares = {
        name: share
        for name, share in (("generated", 1 - chat_share), ("generated_chat", chat_share))
        if share > 0
    }
    order = packing.schedule(shares, count)
    sequences: dict[str, list[packing.Ids]] = {}
    batches = [
        (name, min(batch, order.count(name) - start))
        for name in shares
        for start in range(0, order.count(name), batch)
    ]
    for name, size in track(batches, "generate calibration text", len(batches), listener):
        rows = sample(model, openings[name], size, length, generator)
        sequences.setdefault(name, []).extend(tuple(row) for row in rows.tolist())
    if len({row for rows in sequences.values() for row in rows}) < count:
        raise BadInput(
            f"the model wrote the same {length} tokens twice among {count} sequences; "
            "give a text instead"
        )
    supply = {name: iter(rows) for name, rows in sequences.items()}
    tokens = torch.tensor([next(supply[name]) for name in order], dtype=torch.int64)
    facts = {
        "seed": seed,
        "bos": bool(prefix(tokenizer)),
        "template": template_digest(tokenizer) if "generated_chat" in sequences else None,
    }
    licences = dict.fromkeys(shares, "the model's own")
    return Calibration(tokens, tuple(order), fingerprint(tokens, order, licences, facts))


def start_of_text(tokenizer: Any) -> list[int]:
    """The tokens before a text in training: those that the tokenizer adds, else its BOS, else its
    end-of-text token.

    Raises UsageError when the tokenizer has none of them.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        opening = prefix(tokenizer) or ([token] if token is not None else [])
        if opening:
            return opening
    raise UsageError(
        "this tokenizer has neither a BOS nor an end-of-text token to start a sample from"
    )


def start_of_chat(tokenizer: Any) -> list[int]:
    """The tokens of the chat template up to the point where the user's words begin."""
    messages = [{"role": "user", "content": _PLACEHOLDER}]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))
    return encode(tokenizer, text[: text.index(_PLACEHOLDER)])


@torch.no_grad()
def sample(
    model: Any, opening: Sequence[int], count: int, length: int, generator: torch.Generator
) -> Int64[Tensor, "count length"]:
    """`count` texts of `length` tokens that begin with `opening`, sampled at temperature 1.

    Raises UsageError when the opening leaves no room, BadInput when logits are not finite.
    """
    if len(opening) >= length:
        raise UsageError(
            f"sequences of {length} tokens have no room after an opening of {len(opening)}"
        )
    was_training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        # Newer releases of transformers call this argument `cache`, and warn about the old name.
        cache_name = (
            "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
        )
        tokens = torch.tensor([list(opening)] * count, dtype=torch.int64)
        new_tokens, cache = tokens, None
        while tokens.shape[1] < length:
            output = model(new_tokens.to(device), **{cache_name: cache}, use_cache=True)
            cache = output[cache_name]
            logits = output.logits[:, -1].float().cpu()
            if not bool(torch.isfinite(logits).all()):
                raise BadInput(
                    "the model's logits are not finite, so nothing can be sampled from it"
                )
            new_tokens = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)
            tokens = torch.cat([tokens, new_tokens], dim=1)
        return tokens
    finally:
        model.train(was_training)
