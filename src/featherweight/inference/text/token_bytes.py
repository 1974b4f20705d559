"""The bytes that single tokens stand for: those of all tokens of an answer, joined, are its text.

A token may hold part of a character only, so its own text can be incomplete where its bytes are
not. Which bytes they are depends on the tokenizer's decoder: byte-level vocabularies write each
byte as a letter (Radford et al. 2019, GPT-2), sentencepiece ones write a space as U+2581 and bytes
without a token of their own as <0xE2>.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenBytes:
    """From a token id to its bytes; `tokenizer` is the one of the ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added_texts = {
            id: token.content for id, token in tokenizer.get_added_tokens_decoder().items()
        }
        steps = list(_decoder_steps(tokenizer))
        kinds = {step["type"] for step in steps}
        self._byte_of_letter = _byte_letters() if "ByteLevel" in kinds else None
        self._has_byte_tokens = "ByteFallback" in kinds
        self._replacements = [pair for step in steps if (pair := _replacement(step)) is not None]

    def __call__(self, id: int) -> bytes:
        """The bytes of token `id`; none when no token has this id."""
        if id in self._added_texts:
            return self._added_texts[id].encode()
        piece = self._tokenizer.id_to_token(id)
        if piece is None:
            return b""
        if self._byte_of_letter is not None:
            if all(letter in self._byte_of_letter for letter in piece):
                return bytes(self._byte_of_letter[letter] for letter in piece)
            return piece.encode()
        if self._has_byte_tokens and (match := BYTE_TOKEN.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        if self._has_byte_tokens or self._replacements:
            for pattern, content in self._replacements:
                piece = piece.replace(pattern, content)
            return piece.encode()
        return str(self._tokenizer.decode([id], skip_special_tokens=False)).encode()


def _decoder_steps(tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """The steps of the decoder as its file describes them; none for a tokenizer without one."""
    if tokenizer.decoder is None:
        return
    description = json.loads(tokenizer.decoder.__getstate__())
    steps = description.get("decoders", [description])
    yield from (step for step in steps if isinstance(step, dict) and "type" in step)


def _replacement(step: dict[str, Any]) -> tuple[str, str] | None:
    """The text that a step replaces, and by what."""
    if step["type"] == "Metaspace":
        return step["replacement"], " "
    if step["type"] == "Replace" and "String" in step["pattern"]:
        return step["pattern"]["String"], step["content"]
    return None


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte: itself where that can be printed, else one behind
    U+00FF, in the order of the bytes.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unprintable = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + number): byte for number, byte in enumerate(unprintable)}
