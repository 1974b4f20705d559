"""Answers that follow a JSON schema: before each token, llguidance says which ones keep the text on
the schema.

llguidance walks a grammar made from the schema over the tokenizer's vocabulary (Rust, about 50 us a
token) and works with any tokenizer.json. It is an optional extra: `pip install
featherweight[schema]`. A `JsonSchema` is a `mask` for `generate`, one for each answer; when the
value is complete only an end token is left, so the answer ends by itself.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.errors import BadInput, UsageError
from .tokenizer import ChatTokenizer

MAX_SCHEMA = 1_000_000  # characters


class JsonSchema:
    """Which tokens may come next, for an answer that is JSON after `schema` (text of JSON, or what
    it says).

    `vocab_size`: of the engine's logits. Raises UsageError when llguidance is missing or the schema
    cannot be used.
    """

    def __init__(
        self, text: ChatTokenizer, schema: str | dict[str, Any] | bool, vocab_size: int
    ) -> None:
        try:
            from llguidance import LLMatcher, LLTokenizer
        except ImportError as error:
            raise UsageError(
                "JSON schemas need llguidance: pip install featherweight[schema]"
            ) from error
        if not text.end_ids:
            raise UsageError(
                "this model has no end token, so an answer after a schema could not end"
            )
        source = _checked(schema)
        size = max(vocab_size, text.vocab_size)
        tokenizer = LLTokenizer(text.tokenizer_json, n_vocab=size, eos_token=sorted(text.end_ids))
        try:
            grammar = LLMatcher.grammar_from_json_schema(source)
        except ValueError as error:
            raise UsageError(f"the JSON schema cannot be used: {error}") from error
        self._matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if self._matcher.is_error():
            raise UsageError(f"the JSON schema cannot be used: {_short(self._matcher.get_error())}")
        self._num_seen, self._vocab_size = 0, vocab_size
        self._bits = np.zeros((1, -(-size // 32)), np.int32)

    def __call__(self, tokens: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(vocab,) True where a token may follow the answer's `tokens`."""
        from llguidance.numpy import fill_next_token_bitmask

        new = [int(token) for token in tokens[self._num_seen :]]
        if len(tokens) < self._num_seen or not self._matcher.consume_tokens(new):
            raise BadInput(
                f"the answer left its schema: {_short(self._matcher.get_error())}; one mask serves one answer"
            )
        self._num_seen = len(tokens)
        fill_next_token_bitmask(self._matcher, self._bits)
        if self._matcher.is_error():
            raise BadInput(
                f"the schema cannot be followed further: {_short(self._matcher.get_error())}"
            )
        allowed = np.unpackbits(self._bits.view(np.uint8)[0], bitorder="little")
        return allowed[: self._vocab_size].astype(bool)


def _checked(schema: str | dict[str, Any] | bool) -> str:
    source = schema if isinstance(schema, str) else json.dumps(schema)
    if len(source) > MAX_SCHEMA:
        raise UsageError(f"the JSON schema has {len(source)} characters; at most {MAX_SCHEMA}")
    try:
        found = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the JSON schema is not JSON: {error}") from error
    if not isinstance(found, (dict, bool)):
        raise UsageError('a JSON schema is an object, for example {"type": "object"}')
    return source


def _short(message: str) -> str:
    return (message.strip().splitlines() or ["it gave no reason"])[0][:300]
