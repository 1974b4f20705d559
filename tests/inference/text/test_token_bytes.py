"""The bytes of all tokens, joined, are the text, for each kind of decoder."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from featherweight.inference import ChatTokenizer
from featherweight.inference.text.token_bytes import TokenBytes

TEXT = "fox \N{HERB}\N{VARIATION SELECTOR-16} é ✓ \x00\x7f\xad 羽"
BYTE_LEVEL = ChatTokenizer.of(tiny.tokenizer())


def sentencepiece() -> Tokenizer:
    """Words with U+2581 for a space, and a token for each byte."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "f", "o", "x", "▁f", "▁fo"]
    vocabulary = {piece: id for id, piece in enumerate(pieces)}
    merges = [("▁", "f"), ("▁f", "o")]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


@given(st.text(max_size=20))
def test_byte_level(text: str) -> None:
    ids = BYTE_LEVEL.encode(text)
    assert b"".join(map(BYTE_LEVEL.token_bytes, ids)).decode() == text


@pytest.mark.parametrize("text", [TEXT, "fox fox", "\N{DOG}"])
def test_sentencepiece(text: str) -> None:
    tokenizer = sentencepiece()
    ids = tokenizer.encode(text).ids
    assert b"".join(map(TokenBytes(tokenizer), ids)).decode() == text


def test_metaspace_added_tokens_and_none() -> None:
    tokenizer = Tokenizer(models.BPE({"▁a": 0, "b": 1}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    token_bytes = TokenBytes(tokenizer)
    assert [token_bytes(id) for id in (0, 1, 2, 3)] == [b" a", b"b", b"<|end|>", b""]
    tokenizer = Tokenizer(models.WordLevel({"word": 0}, "word"))
    assert TokenBytes(tokenizer)(0) == b"word"
