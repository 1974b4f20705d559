"""Answers that follow a grammar: before each token, llguidance gives the tokens after which the
text still follows it. The grammar comes from a JSON schema, or from the functions that an answer
may call.

llguidance matches a grammar against the tokenizer's vocabulary (in Rust, about 50 us a token). It
works with any tokenizer.json, and is an optional extra: `pip install featherweight[schema]`.
Reading the vocabulary takes a second or two, so `Grammars` does it once a model. A `GrammarMask` is
a `mask` for `generate`, and serves one answer. When the text is complete only an end token is
allowed, so the answer ends by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.errors import BadInput, UsageError
from .tokenizer import ChatTokenizer
from .tool_calls import BareCalls, CallFormat, Function

MAX_SCHEMA = 1_000_000  # characters
ANY_TEXT = r"/(.|\n)*/"


class GrammarMask:
    """The tokens that may come next in one answer; made by `Grammars`."""

    def __init__(self, matcher: Any, num_tokens: int, vocab_size: int) -> None:
        """Args: matcher, of llguidance; num_tokens, which it knows; vocab_size, the number of the
        engine's logits.
        """
        self._matcher, self._num_tokens, self._vocab_size = matcher, num_tokens, vocab_size
        self._num_consumed = 0
        self._bits = np.zeros((1, -(-num_tokens // 32)), np.int32)

    def copy(self) -> GrammarMask:
        """A mask for another answer after the same grammar."""
        matcher = self._matcher.deep_copy()
        matcher.reset()
        return GrammarMask(matcher, self._num_tokens, self._vocab_size)

    def __call__(self, tokens: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The mask (vocab,): True where a token may follow the answer's `tokens` (count,).

        Raises BadInput when the answer does not follow the grammar, or another answer began.
        """
        from llguidance.numpy import fill_next_token_bitmask

        new_tokens = [int(token) for token in tokens[self._num_consumed :]]
        if len(tokens) < self._num_consumed or not self._matcher.consume_tokens(new_tokens):
            raise BadInput(
                f"the answer left its grammar: {_reason(self._matcher)}; one mask serves one answer"
            )
        self._num_consumed = len(tokens)
        fill_next_token_bitmask(self._matcher, self._bits)
        if self._matcher.is_error():
            raise BadInput(f"the grammar cannot be followed further: {_reason(self._matcher)}")
        mask = np.unpackbits(self._bits.view(np.uint8)[0], bitorder="little")
        return mask[: self._vocab_size].astype(bool)


class Grammars:
    """Masks for the answers of one model.

    Args: tokenizer, of the model; vocab_size, the number of the engine's logits. Raises UsageError
    when llguidance is missing, or the model has no end token.
    """

    def __init__(self, tokenizer: ChatTokenizer, vocab_size: int) -> None:
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise UsageError(
                "JSON schemas and tools need llguidance: pip install featherweight[schema]"
            ) from error
        if not tokenizer.end_ids:
            raise UsageError(
                "this model has no end token, so an answer after a schema could not end"
            )
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._num_tokens = max(vocab_size, tokenizer.vocab_size)
        self._ll_tokenizer = LLTokenizer(
            tokenizer.tokenizer_json, n_vocab=self._num_tokens, eos_token=sorted(tokenizer.end_ids)
        )

    def json_schema(self, schema: str | dict[str, Any] | bool) -> GrammarMask:
        """The mask of an answer that is JSON of a schema.

        Args: schema, as JSON text or as the value that it stands for. Raises UsageError when it
        cannot be used.
        """
        from llguidance import LLMatcher

        source = schema_source(schema)
        try:
            grammar = LLMatcher.grammar_from_json_schema(source)
        except ValueError as error:
            raise UsageError(f"the JSON schema cannot be used: {error}") from error
        return self._mask(grammar, "the JSON schema")

    def calls(
        self,
        format: CallFormat,
        functions: Sequence[Function],
        *,
        is_required: bool,
        is_parallel: bool,
        content_schema: dict[str, Any] | None = None,
    ) -> GrammarMask:
        """The mask of an answer that may call functions.

        Args: format, how the model writes calls; functions, which may be called with arguments
        after their schemas; is_required, whether the answer must be calls and nothing else;
        is_parallel, whether it may hold several; content_schema, which an answer without calls
        follows (None: any text). Raises UsageError when a schema cannot be used.
        """
        from llguidance import LLMatcher

        begin, call_separator = self._terms(format.begin), self._terms(format.call_separator)
        # Some models write a line break behind the last call before they end their turn.
        end, middle = [*self._terms(format.end), '"\\n"?'], self._terms(format.middle)
        calls = f"tool ({' '.join(call_separator)} tool)*" if is_parallel else "tool"
        lines = ["%llguidance {}"]
        if is_required:
            lines += [f"start: {' '.join(begin)} {calls} {' '.join(end)}"]
        elif content_schema is not None:
            lines += [f"start: content | {' '.join(begin)} {calls} {' '.join(end)}"]
            lines += [f"content: %json {schema_source(content_schema)}"]
        else:
            # Text of any kind may come first. It ends where the first call begins, which a special
            # token shows by itself; other text has to be searched for (a lazy rule).
            is_lazy = begin[0].startswith('"')
            lines += [f"start: TEXT | head {' '.join(begin[1:])} {calls} {' '.join(end)}"]
            lines += [f"head{'[lazy]' if is_lazy else ''}: TEXT {begin[0]}", f"TEXT: {ANY_TEXT}"]
            if (
                bare := BareCalls.of(format, [function.name for function in functions])
            ) is not None:
                lines[1] += " | " + " | ".join(f"bare_{n}" for n in range(len(functions)))
                lines += _bare_rules(bare, functions)
        lines += ["tool: " + " | ".join(f"tool_{number}" for number in range(len(functions)))]
        for number, function in enumerate(functions):
            name, schema = json.dumps(function.name), schema_source(function.schema())
            lines += [f"tool_{number}: {name} {' '.join(middle)} %json {schema}"]
        try:
            grammar = LLMatcher.grammar_from_lark("\n".join(lines))
        except ValueError as error:
            raise UsageError(f"a function's parameters cannot be used: {error}") from error
        return self._mask(grammar, "a function's parameters")

    def _mask(self, grammar: str, source_name: str) -> GrammarMask:
        from llguidance import LLMatcher

        matcher = LLMatcher(self._ll_tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise UsageError(f"{source_name} cannot be used: {_reason(matcher)}")
        return GrammarMask(matcher, self._num_tokens, self._vocab_size)

    def _terms(self, text: str) -> list[str]:
        """The terms of a grammar for a fixed text: quoted texts, and the numbers of the tokens that
        llguidance matches by number only.
        """
        terms, plain_text = [], ""
        for piece, id in self._tokenizer.split_at_added_tokens(text):
            if id is not None and self._ll_tokenizer.is_special_token(id):
                terms += [json.dumps(plain_text)] if plain_text else []
                terms += [f"<[{id}]>"]
                plain_text = ""
            else:
                plain_text += piece
        return terms + ([json.dumps(plain_text)] if plain_text else [])


def _bare_rules(bare: BareCalls, functions: Sequence[Function]) -> list[str]:
    """The rules of a call without the marks of the template."""
    lines = []
    for number, function in enumerate(functions):
        # The lazy rule ends as soon as it can, and decides that the answer is a call.
        lines += [f"head_{number}[lazy]: /{bare.head(function.name)}/"]
        schema = schema_source(function.schema())
        lines += [rf"bare_{number}: head_{number} /\s{{1,4}}/? %json {schema} /{bare.end}/"]
    return lines


def _reason(matcher: Any) -> str:
    """The first line of the matcher's error message."""
    return (matcher.get_error().strip().splitlines() or ["it gave no reason"])[0][:300]


def schema_source(schema: str | dict[str, Any] | bool) -> str:
    """The schema as JSON text, checked as far as that it is a schema. Raises UsageError."""
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
