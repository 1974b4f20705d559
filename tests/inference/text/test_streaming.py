"""What a stream shows, put together, is the text of all tokens up to the stop string, whatever the
tokens are.
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


BYTES, PIECES = byte_level(), sentencepiece()
FIRST_BYTE = 9


def shown(text: Any, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[str, TextStream]:
    stream = TextStream(text, stop)
    pieces = [stream.push(id) for id in ids]
    return "".join([*pieces, stream.finish()]), stream


@given(st.lists(st.integers(0, VOCAB + 5), max_size=40))
def test_random_ids(ids: list[int]) -> None:
    assert shown(BYTES, ids)[0] == BYTES.decode(ids)


@given(st.text(alphabet=EMOJI + "aé\u0301\ufffd ", max_size=30))
def test_text_survives(text: str) -> None:
    assert shown(BYTES, BYTES.encode(text))[0] == text


@given(st.lists(st.one_of(st.integers(1, 8), st.sampled_from([*EMOJI, "\ufffd"])), max_size=25))
def test_byte_fallback(parts: list[Any]) -> None:
    ids: list[int] = []
    for part in parts:
        ids += [part] if isinstance(part, int) else [FIRST_BYTE + byte for byte in part.encode()]
    assert shown(PIECES, ids)[0] == PIECES.decode(ids)


def test_broken_byte_fallback_takes_nothing_back() -> None:
    """The decoder would turn the whole run into U+FFFD; what was shown stays."""
    ids = [2, *(FIRST_BYTE + byte for byte in "羽".encode() + b"\xe2\x82"), *[4] * 20]
    text, _ = shown(PIECES, ids)
    assert text.startswith("the羽") and text.endswith("\ufffd" + "a" * 20)


STOPS = st.lists(
    st.text(alphabet="ab x", min_size=1, max_size=4), min_size=1, max_size=3, unique=True
)


@given(st.text(alphabet="ab x", max_size=40), STOPS)
def test_stop_strings(text: str, stop: list[str]) -> None:
    ids = BYTES.encode(text)
    stream, seen, count = TextStream(BYTES, tuple(stop)), "", 0
    for id in ids:
        seen += stream.push(id)
        count += 1
        if stream.stopped:
            break
    seen += stream.finish()
    # The text that was there when the first stop string was complete, cut where it starts.
    there = BYTES.decode(ids[:count])
    places = [place for place in map(there.find, stop) if place >= 0]
    assert stream.stopped == bool(places) == any(s in text for s in stop)
    assert seen == (there[: min(places)] if places else text)
    assert not stream.stopped or stream.push(5) == stream.finish() == ""


@given(st.lists(st.integers(0, VOCAB - 1), max_size=25), STOPS)
def test_random_ids_with_stops(ids: list[int], stop: list[str]) -> None:
    text, stream = shown(BYTES, ids, tuple(stop))
    whole = BYTES.decode(ids)
    assert whole.startswith(text)
    if not stream.stopped:
        assert text == whole and not any(s in whole for s in stop)


def test_text_comes_as_soon_as_it_is_certain() -> None:
    stream = TextStream(BYTES, ("end",))
    a, b, e, n, x = (BYTES.encode(letter)[0] for letter in "abenx")
    accent = BYTES.encode("é")
    assert stream.push(a) == "a"
    assert [stream.push(id) for id in accent] == ["", "é"]
    assert [stream.push(id) for id in (e, n, x)] == ["", "", "enx"]
    assert stream.push(b) == "b"
