"""The two shapes of OpenAI's answers, complete and in chunks: chat completions and (text)
completions.

A shape is made for one answer and turns its deltas into JSON objects. Log-probabilities follow the
tokens, as clients expect: a chunk holds those of the tokens that it brings, also when their text is
still withheld.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..inference.answer_builder import TextDelta
from ..inference.text.tokenizer import ChatTokenizer
from ..ops.sampling import Choice

MIN_LOGPROB = -9999.0  # what OpenAI writes for the logarithm of zero


class Shape(ABC):
    """The JSON objects of one answer; subclasses are the kinds of OpenAI's protocol.

    Args: model, its name; tokenizer, for the text of single tokens; logprobs, whether the client
    asked for log-probabilities.
    """

    id_prefix: str
    object_name: str
    chunk_object_name: str

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

    def chunks(self, delta: TextDelta) -> list[dict[str, Any]]:
        """The chunks for one delta; none when it holds nothing that clients read."""
        if not (delta.text or delta.finish or self._logprobs):
            return []
        return [self._chunk([self._chunk_choice(delta)])]

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The last chunk, for clients that ask for the usage."""
        return self._chunk([]) | {"usage": usage}

    def response(self, deltas: Sequence[TextDelta], usage: dict[str, Any]) -> dict[str, Any]:
        """The complete answer in one object."""
        answer = TextDelta(
            "".join(delta.text for delta in deltas),
            tuple(token for delta in deltas for token in delta.tokens),
            tuple(choice for delta in deltas for choice in self._text_choices(delta)),
            deltas[-1].finish,
        )
        return {
            **self._common_fields,
            "object": self.object_name,
            "choices": [self._response_choice(answer)],
            "usage": usage,
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._common_fields, "object": self.chunk_object_name, "choices": choices}

    def _text_choices(self, delta: TextDelta) -> list[Choice]:
        """The choices that are part of the text: all but the end token."""
        return [choice for choice in delta.choices if choice.token not in self._tokenizer.end_ids]

    @abstractmethod
    def _chunk_choice(self, delta: TextDelta) -> dict[str, Any]:
        """The entry of `choices` in the chunk for `delta`."""

    @abstractmethod
    def _response_choice(self, answer: TextDelta) -> dict[str, Any]:
        """The entry of `choices` in a complete answer, all of whose deltas are joined in
        `answer`.
        """


class ChatShape(Shape):
    """chat.completion and chat.completion.chunk."""

    id_prefix, object_name = "chatcmpl", "chat.completion"
    chunk_object_name = "chat.completion.chunk"

    def first_chunks(self) -> list[dict[str, Any]]:
        """One chunk with the role and no text."""
        delta = {"role": "assistant", "content": ""}
        return [
            self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
        ]

    def _chunk_choice(self, delta: TextDelta) -> dict[str, Any]:
        content = {"content": delta.text} if delta.text or not delta.finish else {}
        return {
            "index": 0,
            "delta": content,
            "logprobs": self._logprobs_entry(delta),
            "finish_reason": delta.finish,
        }

    def _response_choice(self, answer: TextDelta) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        return {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs_entry(answer),
            "finish_reason": answer.finish,
        }

    def _logprobs_entry(self, delta: TextDelta) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        content = [
            self._token_entry(choice.token, choice.logprob)
            | {"top_logprobs": [self._token_entry(token, logprob) for token, logprob in choice.top]}
            for choice in self._text_choices(delta)
        ]
        return {"content": content, "refusal": None}

    def _token_entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self._tokenizer.token_text(token)
        return {
            "token": text,
            "logprob": finite_logprob(logprob),
            "bytes": list(text.encode("utf-8", "replace")),
        }


class CompletionShape(Shape):
    """text_completion, for complete answers and chunks."""

    id_prefix, object_name, chunk_object_name = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, tokenizer: ChatTokenizer, logprobs: bool) -> None:
        super().__init__(model, tokenizer, logprobs)
        self._text_offset = 0  # characters of the tokens that were reported

    def _chunk_choice(self, delta: TextDelta) -> dict[str, Any]:
        return {
            "index": 0,
            "text": delta.text,
            "logprobs": self._logprobs_entry(delta),
            "finish_reason": delta.finish,
        }

    def _response_choice(self, answer: TextDelta) -> dict[str, Any]:
        return self._chunk_choice(answer)

    def _logprobs_entry(self, delta: TextDelta) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        choices = self._text_choices(delta)
        tokens = [self._tokenizer.token_text(choice.token) for choice in choices]
        offsets = []
        for token in tokens:
            offsets.append(self._text_offset)
            self._text_offset += len(token)
        top_logprobs = [
            {
                self._tokenizer.token_text(token): finite_logprob(logprob)
                for token, logprob in choice.top
            }
            for choice in choices
        ]
        return {
            "tokens": tokens,
            "token_logprobs": [finite_logprob(choice.logprob) for choice in choices],
            "top_logprobs": top_logprobs,
            "text_offset": offsets,
        }


def finite_logprob(logprob: float | None) -> float:
    """`logprob` as a number that JSON can hold; MIN_LOGPROB for None, minus infinity and NaN."""
    return MIN_LOGPROB if logprob is None or not logprob > MIN_LOGPROB else logprob
