"""Answers that follow a JSON schema: before each token, llguidance gives the tokens after which the
text still follows the schema.

llguidance derives a grammar from the schema and matches it against the tokenizer's vocabulary (in
Rust, about 50 us a token). It works with any tokenizer.json, and is an optional extra: `pip install
featherweight[schema]`. A `JsonSchema` is a `mask` for `generate`, and serves one answer. When the
JSON value is complete only an end token is allowed, so the answer ends by itself.
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
    """The tokens that may come next, for an answer that is JSON of a schema.

    Args: tokenizer, of the model; schema, as JSON text or as the value that it stands for;
    vocab_size, the number of the engine's logits. Raises UsageError when llguidance is missing or
    the schema cannot be used.
    """

    def __init__(
        self, tokenizer: ChatTokenizer, schema: str | dict[str, Any] | bool, vocab_size: int
    ) -> None:
        try:
            from llguidance import LLMatcher, LLTokenizer
        except ImportError as error:
            raise UsageError(
                "JSON schemas need llguidance: pip install featherweight[schema]"
            ) from error
        if not tokenizer.end_ids:
            raise UsageError(
                "this model has no end token, so an answer after a schema could not end"
            )
        source = _schema_source(schema)
        size = max(vocab_size, tokenizer.vocab_size)
        ll_tokenizer = LLTokenizer(
            tokenizer.tokenizer_json, n_vocab=size, eos_token=sorted(tokenizer.end_ids)
        )
        try:
            grammar = LLMatcher.grammar_from_json_schema(source)
        except ValueError as error:
            raise UsageError(f"the JSON schema cannot be used: {error}") from error
        self._matcher = LLMatcher(ll_tokenizer, grammar, log_level=0)
        if self._matcher.is_error():
            raise UsageError(f"the JSON schema cannot be used: {self._error()}")
        self._num_consumed, self._vocab_size = 0, vocab_size
        self._bits = np.zeros((1, -(-size // 32)), np.int32)

    def __call__(self, tokens: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The mask (vocab,): True where a token may follow the answer's `tokens` (count,).

        Raises BadInput when the answer does not follow the schema, or another answer began.
        """
        from llguidance.numpy import fill_next_token_bitmask

        new_tokens = [int(token) for token in tokens[self._num_consumed :]]
        if len(tokens) < self._num_consumed or not self._matcher.consume_tokens(new_tokens):
            raise BadInput(
                f"the answer left its schema: {self._error()}; one mask serves one answer"
            )
        self._num_consumed = len(tokens)
        fill_next_token_bitmask(self._matcher, self._bits)
        if self._matcher.is_error():
            raise BadInput(f"the schema cannot be followed further: {self._error()}")
        mask = np.unpackbits(self._bits.view(np.uint8)[0], bitorder="little")
        return mask[: self._vocab_size].astype(bool)

    def _error(self) -> str:
        """The first line of the matcher's error message."""
        return (self._matcher.get_error().strip().splitlines() or ["it gave no reason"])[0][:300]


def _schema_source(schema: str | dict[str, Any] | bool) -> str:
    """The schema as JSON text, checked as far as that it is a schema."""
    source = schema if isinstance(schema, str) else json.dumps(schema)
    if len(source) > MAX_SCHEMA:
        raise UsageError(f"the JSON schema has {len(source)} characters; at most {MAX_SCHEMA}")
    try:
        value = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the JSON schema is not JSON: {error}") from error
    if not isinstance(value, (dict, bool)):
        raise UsageError('a JSON schema is an object, for example {"type": "object"}')
    return source
