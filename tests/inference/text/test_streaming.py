"""The texts that a stream returns are together the text of all tokens up to the stop string,
whatever the tokens are.
"""

from __future__ import annotations

import json
from typing import Any

import tiny
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from featherweight.inference.text.streaming import TextStream
from featherweight.inference.text.tokenizer import ChatTokenizer

VOCAB = 300
EMOJI = "羽 🪶é→x"


def byte_level() -> ChatTokenizer:
    return ChatTokenizer(
        json.dumps(json.loads(tiny.tokenizer().backend_tokenizer.to_str())), {}, (), None
    )


def sentencepiece() -> ChatTokenizer:
    """Word starts are ▁ and unknown characters are byte tokens, as in Llama 2 and Gemma."""
    words = ["<unk>", "▁", "▁the", "▁fox", "a", "b", "x", "the", "▁▁"]
    vocab = {
        word: id for id, word in enumerate([*words, *(f"<0x{byte:02X}>" for byte in range(256))])
    }
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return ChatTokenizer(tokenizer.to_str(), {}, (), None)


BYTE_LEVEL, SENTENCEPIECE = byte_level(), sentencepiece()
FIRST_BYTE = 9


def streamed_text(
    tokenizer: Any, ids: list[int], stop: tuple[str, ...] = ()
) -> tuple[str, TextStream]:
    stream = TextStream(tokenizer, stop)
    texts = [stream.push(id) for id in ids]
    return "".join([*texts, stream.finish()]), stream


@given(st.lists(st.integers(0, VOCAB + 5), max_size=40))
def test_random_ids(ids: list[int]) -> None:
    assert streamed_text(BYTE_LEVEL, ids)[0] == BYTE_LEVEL.decode(ids)


@given(st.text(alphabet=EMOJI + "aé\u0301\ufffd ", max_size=30))
def test_text_survives(text: str) -> None:
    assert streamed_text(BYTE_LEVEL, BYTE_LEVEL.encode(text))[0] == text


@given(st.lists(st.one_of(st.integers(1, 8), st.sampled_from([*EMOJI, "\ufffd"])), max_size=25))
def test_byte_fallback(parts: list[Any]) -> None:
    ids: list[int] = []
    for part in parts:
        ids += [part] if isinstance(part, int) else [FIRST_BYTE + byte for byte in part.encode()]
    assert streamed_text(SENTENCEPIECE, ids)[0] == SENTENCEPIECE.decode(ids)


def test_broken_byte_fallback_takes_nothing_back() -> None:
    """The decoder turns the whole run into U+FFFD; text that was returned stays as it is."""
    ids = [2, *(FIRST_BYTE + byte for byte in "羽".encode() + b"\xe2\x82"), *[4] * 20]
    text, _ = streamed_text(SENTENCEPIECE, ids)
    assert text.startswith("the羽") and text.endswith("\ufffd" + "a" * 20)


STOPS = st.lists(
    st.text(alphabet="ab x", min_size=1, max_size=4), min_size=1, max_size=3, unique=True
)


@given(st.text(alphabet="ab x", max_size=40), STOPS)
def test_stop_strings(text: str, stop: list[str]) -> None:
    ids = BYTE_LEVEL.encode(text)
    stream, result, count = TextStream(BYTE_LEVEL, tuple(stop)), "", 0
    for id in ids:
        result += stream.push(id)
        count += 1
        if stream.is_stopped:
            break
    result += stream.finish()
    # The text up to the token that completes the first stop string, cut where that string starts.
    pushed_text = BYTE_LEVEL.decode(ids[:count])
    positions = [position for position in map(pushed_text.find, stop) if position >= 0]
    assert stream.is_stopped == bool(positions) == any(s in text for s in stop)
    assert result == (pushed_text[: min(positions)] if positions else text)
    assert not stream.is_stopped or stream.push(5) == stream.finish() == ""


@given(st.lists(st.integers(0, VOCAB - 1), max_size=25), STOPS)
def test_random_ids_with_stops(ids: list[int], stop: list[str]) -> None:
    text, stream = streamed_text(BYTE_LEVEL, ids, tuple(stop))
    all_text = BYTE_LEVEL.decode(ids)
    assert all_text.startswith(text)
    if not stream.is_stopped:
        assert text == all_text and not any(s in all_text for s in stop)


def test_text_comes_as_soon_as_it_is_certain() -> None:
    stream = TextStream(BYTE_LEVEL, ("end",))
    a, b, e, n, x = (BYTE_LEVEL.encode(letter)[0] for letter in "abenx")
    accent = BYTE_LEVEL.encode("é")
    assert stream.push(a) == "a"
    assert [stream.push(id) for id in accent] == ["", "é"]
    assert [stream.push(id) for id in (e, n, x)] == ["", "", "enx"]
    assert stream.push(b) == "b"
