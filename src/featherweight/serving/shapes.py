"""The two shapes of OpenAI's answers, whole and in chunks: chat completions and (text) completions.

A shape is made for one answer and turns its pieces into JSON objects. Log-probabilities follow the
tokens, as clients expect: a chunk holds those of the tokens that it brings, also when their text is
not certain yet.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..inference.generation import Piece
from ..inference.sampling import Choice
from ..inference.text.tokenizer import ChatTokenizer

IMPOSSIBLE = -9999.0  # what OpenAI writes for the log of zero


class Shape(ABC):
    """What both share: an id, the time, the model's name, and whether log-probabilities were asked
    for.
    """

    prefix: str
    whole_object: str
    chunk_object: str

    def __init__(self, model: str, text: ChatTokenizer, logprobs: bool) -> None:
        self._text, self._logprobs = text, logprobs
        self._head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first piece."""
        return []

    def chunk(self, piece: Piece) -> list[dict[str, Any]]:
        """Chunks for one piece; none while there is nothing to tell."""
        if not (piece.text or piece.finish or self._logprobs):
            return []
        return [self._chunk([self._delta(piece)])]

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The last chunk when usage was asked for."""
        return self._chunk([]) | {"usage": usage}

    def whole(self, pieces: Sequence[Piece], usage: dict[str, Any]) -> dict[str, Any]:
        """The answer in one object."""
        joined = Piece(
            "".join(piece.text for piece in pieces),
            tuple(token for piece in pieces for token in piece.tokens),
            tuple(choice for piece in pieces for choice in self._seen(piece)),
            pieces[-1].finish,
        )
        return {
            **self._head,
            "object": self.whole_object,
            "choices": [self._choice(joined)],
            "usage": usage,
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": self.chunk_object, "choices": choices}

    def _seen(self, piece: Piece) -> list[Choice]:
        """The choices that are part of the text: all but the token that ends it."""
        return [choice for choice in piece.choices if choice.token not in self._text.end_ids]

    @abstractmethod
    def _delta(self, piece: Piece) -> dict[str, Any]:
        """A choice in a chunk."""

    @abstractmethod
    def _choice(self, joined: Piece) -> dict[str, Any]:
        """The choice in a whole answer."""


class ChatShape(Shape):
    """chat.completion and chat.completion.chunk."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self) -> list[dict[str, Any]]:
        """The role comes first, alone."""
        delta = {"role": "assistant", "content": ""}
        return [
            self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
        ]

    def _delta(self, piece: Piece) -> dict[str, Any]:
        delta = {"content": piece.text} if piece.text or not piece.finish else {}
        return {
            "index": 0,
            "delta": delta,
            "logprobs": self._likely(piece),
            "finish_reason": piece.finish,
        }

    def _choice(self, joined: Piece) -> dict[str, Any]:
        message = {"role": "assistant", "content": joined.text, "refusal": None}
        return {
            "index": 0,
            "message": message,
            "logprobs": self._likely(joined),
            "finish_reason": joined.finish,
        }

    def _likely(self, piece: Piece) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        content = [
            self._token(choice.token, choice.logprob)
            | {"top_logprobs": [self._token(token, logprob) for token, logprob in choice.top]}
            for choice in self._seen(piece)
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self._text.token_text(token)
        return {
            "token": text,
            "logprob": written(logprob),
            "bytes": list(text.encode("utf-8", "replace")),
        }


class CompletionShape(Shape):
    """text_completion, for both."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, text: ChatTokenizer, logprobs: bool) -> None:
        super().__init__(model, text, logprobs)
        self._offset = 0

    def _delta(self, piece: Piece) -> dict[str, Any]:
        return {
            "index": 0,
            "text": piece.text,
            "logprobs": self._likely(piece),
            "finish_reason": piece.finish,
        }

    def _choice(self, joined: Piece) -> dict[str, Any]:
        return self._delta(joined)

    def _likely(self, piece: Piece) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        tokens = [self._text.token_text(choice.token) for choice in self._seen(piece)]
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        top = [
            {self._text.token_text(token): written(logprob) for token, logprob in choice.top}
            for choice in self._seen(piece)
        ]
        return {
            "tokens": tokens,
            "token_logprobs": [written(choice.logprob) for choice in self._seen(piece)],
            "top_logprobs": top,
            "text_offset": offsets,
        }


def written(logprob: float | None) -> float:
    """A number that JSON can hold."""
    return IMPOSSIBLE if logprob is None or not logprob > IMPOSSIBLE else logprob
