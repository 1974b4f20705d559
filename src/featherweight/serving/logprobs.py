"""Log-probabilities of tokens in the two forms of OpenAI's protocol.

A token is named by its text, or by its bytes (`bytes:\\xf0\\x9f`) when it holds part of a character
only, so that different tokens have different names; the few whose names are still the same (two
entries of a vocabulary with the same text) are named by their number (`token_id:7`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..inference.text.tokenizer import ChatTokenizer
from ..ops.sampling import Choice

MIN_LOGPROB = -9999.0  # what OpenAI writes for the logarithm of zero


def chat_entries(tokenizer: ChatTokenizer, choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """The `content` of a chat answer's `logprobs`."""
    return [
        _entry(tokenizer, choice.token, choice.logprob)
        | {"top_logprobs": [_entry(tokenizer, token, logprob) for token, logprob in choice.top]}
        for choice in choices
    ]


def completion_entries(
    tokenizer: ChatTokenizer, choices: Sequence[Choice], offset: int
) -> dict[str, Any]:
    """The `logprobs` of a completion, whose first token begins at character `offset`.

    A choice without a log-probability (the first token of a prompt) gets null.
    """
    names = [token_name(tokenizer, choice.token) for choice in choices]
    offsets = []
    for choice in choices:
        offsets.append(offset)
        offset += len(tokenizer.token_text(choice.token))
    return {
        "tokens": names,
        "token_logprobs": [_logprob_or_null(choice) for choice in choices],
        "top_logprobs": [_top_logprobs(tokenizer, choice) for choice in choices],
        "text_offset": offsets,
    }


def token_name(tokenizer: ChatTokenizer, token: int) -> str:
    """The text of a token, or its bytes when they are no text."""
    content = tokenizer.token_bytes(token)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def finite_logprob(logprob: float | None) -> float:
    """`logprob` as a number that JSON can hold; MIN_LOGPROB for None, minus infinity and NaN."""
    return MIN_LOGPROB if logprob is None or not logprob > MIN_LOGPROB else logprob


def _entry(tokenizer: ChatTokenizer, token: int, logprob: float | None) -> dict[str, Any]:
    return {
        "token": token_name(tokenizer, token),
        "logprob": finite_logprob(logprob),
        "bytes": list(tokenizer.token_bytes(token)),
    }


def _logprob_or_null(choice: Choice) -> float | None:
    return None if choice.logprob is None else finite_logprob(choice.logprob)


def _top_logprobs(tokenizer: ChatTokenizer, choice: Choice) -> dict[str, float] | None:
    """The most likely tokens by name, the chosen one among them."""
    if choice.logprob is None:
        return None
    entries = {token_name(tokenizer, choice.token): finite_logprob(choice.logprob)}
    for token, logprob in choice.top:
        if token != choice.token:
            name = token_name(tokenizer, token)
            entries[name if name not in entries else f"token_id:{token}"] = finite_logprob(logprob)
    return dict(sorted(entries.items(), key=lambda entry: -entry[1]))
