"""Tokenizes text: evaluation windows, and calibration documents in the form in which the model saw
text in training.

A tokenizer is any object with the interface of a transformers tokenizer: `tokenizer(text,
add_special_tokens=...)` returns `input_ids`, and `apply_chat_template` exists when `chat_template`
is set. Nothing here imports transformers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ..base.errors import BadInput, UsageError
from .corpora import Dialogue, Document

# Whether a window starts with the BOS: as the tokenizer itself begins a text, always, or never.
BOS_CHOICES = ("auto", "yes", "no")


def windows(
    tokenizer: Any, text: str, length: int = 1024, count: int | None = 16, bos: str = "auto"
) -> Int64[Tensor, "count length_plus_1"]:
    """The first `count` evaluation windows of `text`, all that it has for None.

    Window i has the length + 1 tokens i*length ... (i+1)*length: `length` inputs, and the `length`
    targets, each one position later. The text is tokenized as a whole, without a BOS. Windows do
    not overlap, except that the last target of one is the first input of the next.

    With `bos` (as in `first_tokens`), the BOS takes the place of the first token of every window,
    also where the window starts inside the text. This token is context only, so the targets are
    those without a BOS. Where a tokenizer puts several tokens before a text, all but one of them
    are targets too. Raises BadInput when the text has fewer windows, UsageError as `first_tokens`.
    """
    first = torch.tensor(first_tokens(tokenizer, bos), dtype=torch.int64)
    ids = encode(tokenizer, text)
    num_windows = max(0, (len(ids) - 1) // length)
    count = max(1, num_windows) if count is None else count
    if num_windows < count:
        raise BadInput(
            f"the evaluation text has {len(ids)} tokens, which is {num_windows} windows of "
            f"{length} tokens and not {count}; "
            "ask for fewer or shorter windows, or give more text"
        )
    flat = torch.tensor(ids[: count * length + 1], dtype=torch.int64)
    cut_text = flat.unfold(0, length + 1, length).clone()
    cut_text[:, : len(first)] = first[: length + 1]
    return cut_text


def first_tokens(tokenizer: Any, bos: str = "auto") -> list[int]:
    """The tokens with which every evaluation window starts; none for windows of text alone.

    bos: "auto" (what the tokenizer puts before every text, as in training), "yes" (the same, or the
    BOS of a tokenizer that adds nothing by itself) or "no". Raises UsageError for other words, and
    for "yes" when the tokenizer has no BOS.
    """
    if bos not in BOS_CHOICES:
        raise UsageError(f"bos={bos!r}: choose {', '.join(BOS_CHOICES)}")
    if bos == "no":
        return []
    ids = prefix(tokenizer)
    if bos == "auto" or ids:
        return ids
    if tokenizer.bos_token_id is None:
        raise UsageError("bos=yes: this tokenizer has no BOS token; choose auto or no")
    return [int(tokenizer.bos_token_id)]


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text` without special tokens. `verbose=False` suppresses the warning about
    texts that are longer than the context.
    """
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def prefix(tokenizer: Any) -> list[int]:
    """The tokens that the tokenizer puts before every text: a BOS for Llama and Gemma, none for
    SmolLM2 and Qwen.
    """
    probe = "a"
    with_special_tokens = list(tokenizer(probe, add_special_tokens=True, verbose=False).input_ids)
    ids = encode(tokenizer, probe)
    for start in range(len(with_special_tokens) - len(ids) + 1):
        if with_special_tokens[start : start + len(ids)] == ids:
            return with_special_tokens[:start]
    return []


def has_template(tokenizer: Any) -> bool:
    """Whether the tokenizer has a chat template, with which dialogues are rendered."""
    return bool(getattr(tokenizer, "chat_template", None))


def template_digest(tokenizer: Any) -> str:
    """Sixteen hexadecimal digits that identify the chat template in a fingerprint."""
    return hashlib.sha256(str(tokenizer.chat_template).encode("utf-8")).hexdigest()[:16]


def render(tokenizer: Any, dialogue: Dialogue) -> str:
    """A dialogue as text: rendered with the chat template, or as running text when the tokenizer
    has none.
    """
    if not has_template(tokenizer):
        return dialogue.running_text
    messages = [{"role": "user", "content": dialogue.prompt}]
    if dialogue.answer:
        messages.append({"role": "assistant", "content": dialogue.answer})
    return str(
        tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not dialogue.answer
        )
    )


def encode_documents(tokenizer: Any, documents: Sequence[Document]) -> list[list[int]]:
    """Token ids of each document.

    Running text ends with a blank line, so that joined documents stay separate. When the tokenizer
    adds a BOS, the BOS that a chat template writes is removed, because every sequence gets one at
    its start.
    """
    if not documents:
        return []
    bos, with_template = prefix(tokenizer), has_template(tokenizer)
    texts = []
    for document in documents:
        if isinstance(document, Dialogue) and with_template:
            texts.append(render(tokenizer, document))
        else:
            text = document.running_text if isinstance(document, Dialogue) else document
            texts.append(text.rstrip() + "\n\n")
    encoded_texts = [
        list(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    ]
    return [ids[len(bos) :] if bos and ids[: len(bos)] == bos else ids for ids in encoded_texts]
