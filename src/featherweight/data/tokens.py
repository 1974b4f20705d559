"""From text to token ids: exactly the judge's windows, and documents as a tokenizer's own model saw
them in training.

A tokenizer is anything that is called like a transformers tokenizer: `tokenizer(text,
add_special_tokens=...)` gives `input_ids`, and `apply_chat_template` exists where `chat_template`
is set. Nothing here imports transformers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ..base.errors import BadInput
from .corpora import Dialogue, Document


def windows(
    tokenizer: Any, text: str, length: int = 1024, count: int = 16
) -> Int64[Tensor, "count length_plus_1"]:
    """Windows i*length .. (i+1)*length+1 of the tokenised `text`: `length` inputs and the `length`
    targets after them.

    The text is tokenised once as it is and no BOS is added; windows do not overlap except that the
    last target of one is the first input of the next. Raises BadInput when the text has fewer than
    `count` windows.
    """
    ids = encode(tokenizer, text)
    found = max(0, (len(ids) - 1) // length)
    if found < count:
        raise BadInput(
            f"the evaluation text has {len(ids)} tokens, which is {found} windows of {length} tokens and not {count}; "
            "ask for fewer or shorter windows, or give more text"
        )
    flat = torch.tensor(ids[: count * length + 1], dtype=torch.int64)
    return flat.unfold(0, length + 1, length).contiguous()


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text` without special tokens (and without the warning about the model's context
    length).
    """
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def prefix(tokenizer: Any) -> list[int]:
    """What the tokenizer itself puts before a text (a BOS for Llama and Gemma, nothing for SmolLM2
    and Qwen).
    """
    probe = "a"
    with_special = list(tokenizer(probe, add_special_tokens=True, verbose=False).input_ids)
    plain = encode(tokenizer, probe)
    for start in range(len(with_special) - len(plain) + 1):
        if with_special[start : start + len(plain)] == plain:
            return with_special[:start]
    return []


def has_template(tokenizer: Any) -> bool:
    """Whether dialogues are rendered through a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def template_digest(tokenizer: Any) -> str:
    """Sixteen hexadecimal digits that name the chat template in a fingerprint."""
    return hashlib.sha256(str(tokenizer.chat_template).encode("utf-8")).hexdigest()[:16]


def render(tokenizer: Any, dialogue: Dialogue) -> str:
    """A dialogue through the chat template, or as running text when the tokenizer has none."""
    if not has_template(tokenizer):
        return dialogue.plain
    messages = [{"role": "user", "content": dialogue.prompt}]
    if dialogue.answer:
        messages.append({"role": "assistant", "content": dialogue.answer})
    return str(
        tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not dialogue.answer
        )
    )


def encode_documents(tokenizer: Any, documents: Sequence[Document]) -> list[list[int]]:
    """Token ids of each document. Running text ends with a blank line, so that joined documents
    stay apart; a rendered dialogue loses the BOS its template writes when the tokenizer adds one,
    which then stands once, at the start."""
    if not documents:
        return []
    first, templated = prefix(tokenizer), has_template(tokenizer)
    texts = []
    for document in documents:
        if isinstance(document, Dialogue) and templated:
            texts.append(render(tokenizer, document))
        else:
            texts.append(
                (document.plain if isinstance(document, Dialogue) else document).rstrip() + "\n\n"
            )
    encoded = [
        list(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    ]
    return [ids[len(first) :] if first and ids[: len(first)] == first else ids for ids in encoded]
