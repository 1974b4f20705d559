"""The vocabulary of one tokenizer as bytes: what each token adds to a text.

Two tokenizers can only be compared by text, and only in bytes: a token of a byte-level vocabulary
may be half a character. `Vocabulary.lengths` also holds a tokenizer to its word: the bytes of the
tokens, joined, must be the text. One that normalises, lower-cases or has an unknown token says
something else than was read, and its probabilities are those of another text.

Sentencepiece vocabularies put a space before a text, which is no part of it: that byte is taken
from the first token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..base.errors import UsageError
from ..data.tokens import encode
from ..inference.text.token_bytes import BYTE_TOKEN, TokenBytes

Key = tuple[bool, bytes]  # a special token's text means another thing than the same ordinary text


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """tokenizer: a fast tokenizer of transformers. contents: the bytes of each id; none for an id
    without a token. pieces: the tokens as the tokenizer itself writes them; None without one.
    """

    tokenizer: Any
    contents: tuple[bytes, ...]
    pieces: tuple[str | None, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """Raises UsageError for a tokenizer without a fast implementation."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UsageError(
                f"{_name(tokenizer)} is no fast tokenizer, so the bytes of its tokens are not "
                "known; save it with a tokenizer.json"
            )
        content_of = TokenBytes(backend)
        size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        pieces = tuple(backend.id_to_token(id) for id in range(size))
        return cls(tokenizer, tuple(content_of(id) for id in range(size)), pieces)

    def __len__(self) -> int:
        return len(self.contents)

    @property
    def name(self) -> str:
        """The tokenizer, for messages."""
        return _name(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without special tokens around it."""
        return encode(self.tokenizer, text)

    def ids(self) -> dict[Key, int]:
        """(whether the token is special, its bytes) -> its id. Where several tokens have the same
        bytes, the one that the tokenizer prefers: no byte token, and the smallest id.
        """
        added_tokens = self.tokenizer.backend_tokenizer.get_added_tokens_decoder()
        special_ids = {id for id, token in added_tokens.items() if token.special}
        ids: dict[Key, int] = {}
        byte_ids: dict[Key, int] = {}
        for id, content in enumerate(self.contents):
            if content:
                is_byte = BYTE_TOKEN.fullmatch(self.pieces[id] or "") is not None
                (byte_ids if is_byte else ids).setdefault((id in special_ids, content), id)
        return byte_ids | ids

    def lengths(self, ids: Sequence[int], text: str | None = None) -> tuple[bytes, list[int]]:
        """The bytes of `ids`, and how many of them each token has.

        text: what `ids` were made from. Raises UsageError, showing the place, when they do not say
        the same.
        """
        contents = [self.contents[id] for id in ids]
        joined_text = b"".join(contents)
        lengths = [len(content) for content in contents]
        if text is None:
            return joined_text, lengths
        expected_text = text.encode()
        if joined_text == b" " + expected_text and lengths[0]:
            return expected_text, [lengths[0] - 1, *lengths[1:]]
        if joined_text != expected_text:
            raise UsageError(self._difference(ids, joined_text, expected_text))
        return joined_text, lengths

    def _difference(self, ids: Sequence[int], actual: bytes, expected_text: bytes) -> str:
        excerpts = difference(actual, expected_text)
        reason = "it normalises text"
        if self.tokenizer.unk_token_id in ids:
            reason = f"it has no token for a part of it ({self.tokenizer.unk_token})"
        return (
            f"the tokenizer of {self.name} does not keep the text: its tokens say {excerpts[0]!r} "
            f"where the text has {excerpts[1]!r}; {reason}, so its tokens cannot be aligned with "
            "those of another tokenizer. Leave such text out, normalise it before, or choose "
            "another model"
        )


def difference(first: bytes, second: bytes) -> tuple[str, str]:
    """What both say around the first place where they differ."""
    start = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    excerpts = [
        content[max(0, start - 8) : start + 24].decode(errors="replace")
        for content in (first, second)
    ]
    return excerpts[0], excerpts[1]


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
