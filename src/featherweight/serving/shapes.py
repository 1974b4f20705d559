"""The two shapes of OpenAI's answers, complete and in chunks: chat completions and (text)
completions.

A shape is made for one request and turns the deltas of its answers into JSON objects.
Log-probabilities follow the tokens, as clients expect: a chunk holds those of the tokens that it
brings, also when their text is still withheld.
"""

from __future__ import annotations

import secrets
import string
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..inference.answer_builder import TextDelta
from ..inference.generation import Usage
from ..inference.text.tokenizer import ChatTokenizer
from ..inference.text.tool_calls import CallParser, CallPart
from ..ops.sampling import Choice
from .errors import ApiError
from .logprobs import chat_entries, completion_entries

ID_LETTERS = string.ascii_letters + string.digits
NO_LOGPROBS: dict[str, Any] = {"logprobs": None}


class Shape(ABC):
    """The JSON objects of the answers to one request; subclasses are the kinds of OpenAI's
    protocol.

    Args: model, its name; tokenizer, for the text of single tokens; logprobs, whether the client
    asked for log-probabilities.
    """

    id_prefix: str
    object_name: str
    chunk_object_name: str
    ends_with_done = True  # whether [DONE] ends a stream
    names_events = False  # whether the type of a chunk stands before it

    def __init__(self, model: str, tokenizer: ChatTokenizer, logprobs: bool) -> None:
        self._tokenizer, self._logprobs = tokenizer, logprobs
        self._common_fields = {
            "id": f"{self.id_prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def first_chunks(self) -> list[dict[str, Any]]:
        """The chunks before the first delta."""
        return []

    @abstractmethod
    def chunks(self, number: int, delta: TextDelta) -> list[dict[str, Any]]:
        """The chunks for one delta of answer `number`; none when it holds nothing that clients
        read.
        """

    @abstractmethod
    def choice(self, number: int, answer: TextDelta) -> dict[str, Any]:
        """The entry of `choices` for answer `number`, all of whose deltas are joined in
        `answer`.
        """

    def last_chunks(self, usage: Usage, with_usage: bool) -> list[dict[str, Any]]:
        """The chunks behind the last delta; `usage` only for clients that ask for it."""
        return [self._chunk([]) | {"usage": usage_object(usage)}] if with_usage else []

    def error_chunk(self, error: ApiError) -> dict[str, Any]:
        """The chunk for an error in the middle of a stream."""
        return error.body()

    def response(self, answers: Sequence[TextDelta], usage: Usage) -> dict[str, Any]:
        """The complete answers in one object."""
        choices = [self.choice(number, answer) for number, answer in enumerate(answers)]
        return {
            **self._common_fields,
            "object": self.object_name,
            "choices": choices,
            "usage": usage_object(usage),
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._common_fields, "object": self.chunk_object_name, "choices": choices}


class ChatShape(Shape):
    """chat.completion and chat.completion.chunk.

    Args: num_answers, the answers of the request; new_parser, which makes the reader of an answer
    that may hold calls (None: the answers hold none).
    """

    id_prefix, object_name = "chatcmpl", "chat.completion"
    chunk_object_name = "chat.completion.chunk"

    def __init__(
        self,
        model: str,
        tokenizer: ChatTokenizer,
        logprobs: bool,
        num_answers: int = 1,
        new_parser: Callable[[], CallParser] | None = None,
    ) -> None:
        super().__init__(model, tokenizer, logprobs)
        self._parsers = [None if new_parser is None else new_parser() for _ in range(num_answers)]

    def first_chunks(self) -> list[dict[str, Any]]:
        """A chunk for each answer with the role and no text."""
        return [
            self._delta_chunk(number, {"role": "assistant", "content": ""}, NO_LOGPROBS)
            for number in range(len(self._parsers))
        ]

    def chunks(self, number: int, delta: TextDelta) -> list[dict[str, Any]]:
        """The chunks for one delta: of content, or of calls."""
        fields: list[dict[str, Any]] = []
        for call, parts in self._divide(number, delta):
            if call is None:
                fields += [{"content": "".join(part.text for part in parts)}]
            else:
                fields += [{"tool_calls": [_call_delta(part)]} for part in parts]
        if not fields and (delta.finish or self._logprobs):
            fields = [{} if delta.finish else {"content": ""}]
        logprobs = {"logprobs": self._logprobs_entry(delta)}
        finish = self._finish(number, delta)
        return [
            self._delta_chunk(
                number,
                content,
                logprobs if place == 0 else NO_LOGPROBS,
                finish if place == len(fields) - 1 else None,
            )
            for place, content in enumerate(fields)
        ]

    def choice(self, number: int, answer: TextDelta) -> dict[str, Any]:
        """The entry of `choices` for a complete answer; its content is null when it holds calls
        only.
        """
        content, calls = "", []
        for part in self._parts(number, answer):
            if part.call is None:
                content += part.text
            elif part.name is not None:
                calls.append(_new_call(part.name))
            else:
                calls[part.call]["function"]["arguments"] += part.text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if calls:
            message |= {"content": content or None, "tool_calls": calls}
        return {
            "index": number,
            "message": message,
            "logprobs": self._logprobs_entry(answer),
            "finish_reason": self._finish(number, answer),
        }

    def _parts(self, number: int, delta: TextDelta) -> list[CallPart]:
        parser = self._parsers[number]
        if parser is None:
            return [CallPart(None, delta.text)] if delta.text else []
        return parser.push(delta.text, delta.finish is not None)

    def _divide(self, number: int, delta: TextDelta) -> list[tuple[int | None, list[CallPart]]]:
        """The parts of a delta, neighbours of the same kind together."""
        groups: list[tuple[int | None, list[CallPart]]] = []
        for part in self._parts(number, delta):
            if groups and groups[-1][0] == part.call:
                groups[-1][1].append(part)
            else:
                groups.append((part.call, [part]))
        return groups

    def _finish(self, number: int, delta: TextDelta) -> str | None:
        parser = self._parsers[number]
        if delta.finish == "stop" and parser is not None and parser.num_calls:
            return "tool_calls"
        return delta.finish

    def _delta_chunk(
        self,
        number: int,
        content: dict[str, Any],
        logprobs: dict[str, Any],
        finish: str | None = None,
    ) -> dict[str, Any]:
        return self._chunk(
            [{"index": number, "delta": content, **logprobs, "finish_reason": finish}]
        )

    def _logprobs_entry(self, delta: TextDelta) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        # The end token is no part of the content.
        choices = [
            choice for choice in delta.choices if choice.token not in self._tokenizer.end_ids
        ]
        return {"content": chat_entries(self._tokenizer, choices), "refusal": None}


class CompletionShape(Shape):
    """text_completion, for complete answers and chunks.

    Args: echoes, the text of the prompt of each answer, which comes before it.
    """

    id_prefix, object_name, chunk_object_name = "cmpl", "text_completion", "text_completion"

    def __init__(
        self, model: str, tokenizer: ChatTokenizer, logprobs: bool, echoes: Sequence[str]
    ) -> None:
        super().__init__(model, tokenizer, logprobs)
        self._echoes = list(echoes)
        self._offsets = [0] * len(self._echoes)  # characters of the tokens that were reported

    def chunks(self, number: int, delta: TextDelta) -> list[dict[str, Any]]:
        """The chunk for one delta."""
        if not (delta.text or delta.finish or self._logprobs or self._echoes[number]):
            return []
        return [self._chunk([self.choice(number, delta)])]

    def choice(self, number: int, answer: TextDelta) -> dict[str, Any]:
        """The entry of `choices`; an answer that begins has its prompt before it."""
        text, self._echoes[number] = self._echoes[number] + answer.text, ""
        return {
            "index": number,
            "text": text,
            "logprobs": self._logprobs_entry(number, [*answer.prompt, *answer.choices]),
            "finish_reason": answer.finish,
        }

    def _logprobs_entry(self, number: int, choices: list[Choice]) -> dict[str, Any] | None:
        """The log-probabilities of all tokens, the end token included: clients count them."""
        if not self._logprobs:
            return None
        entries = completion_entries(self._tokenizer, choices, self._offsets[number])
        self._offsets[number] += sum(
            len(self._tokenizer.token_text(choice.token)) for choice in choices
        )
        return entries


def joined(deltas: Sequence[TextDelta]) -> TextDelta:
    """All deltas of an answer as one."""
    return replace(
        deltas[-1],
        text="".join(delta.text for delta in deltas),
        tokens=tuple(token for delta in deltas for token in delta.tokens),
        choices=tuple(choice for delta in deltas for choice in delta.choices),
        prompt=deltas[0].prompt,
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _new_call(name: str) -> dict[str, Any]:
    """A call without arguments. Its id has nine letters and digits, which all templates accept."""
    id = "".join(secrets.choice(ID_LETTERS) for _ in range(9))
    return {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}


def _call_delta(part: CallPart) -> dict[str, Any]:
    if part.name is not None:
        return {"index": part.call, **_new_call(part.name)}
    return {"index": part.call, "function": {"arguments": part.text}}
