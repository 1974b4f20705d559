"""A probe of a folder's tokenizer: short texts, and the ids that transformers gave them.

Weights are calibrated and evaluated on the ids of transformers' `AutoTokenizer`; the engines read
the folder's files without transformers. Where both read the same files in two ways, the model would
be used on tokens that it was not measured on, without an error anywhere. So whoever writes a folder
writes `tokenizer_probe.json` too (`interchange/tokenizer_check.py`), and whoever opens it encodes
the texts again, in a few milliseconds. Folders without a probe are read as they are.

The texts hold several scripts, digits, spaces, line ends, code, characters that Unicode
normalization changes, and every added token between letters, spaces and itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...base.errors import BadInput

PROBE = "tokenizer_probe.json"
TEXTS = (
    "",
    "Hello world, it's 2024 and we'll SAY  hello; don't you?",
    " leading space, trailing space ",
    "1234567890 3.14 1,000,000 x12 v2.0 ١٢٣ ²",
    "a  b   c\td\t\te\n\nf\r\n  g\n\n\n   h\u00a0i\u200bj",
    "def f(x_1, *args):\n    return {'a': [x_1 != 0, \"b\"]}  # 100%\n\tpass",
    "déjà vu, Straße, naïve, Œuvre, señor; e\u0301 is é, ﬁ is fi, Å is Å",
    "Привет, мир! Γειά σου Κόσμε. ЁЖ",
    "שלום עולם، مرحبا بالعالم",
    "नमस्ते दुनिया สวัสดีชาวโลก",
    "你好，世界。こんにちは世界！안녕하세요",
    "🙂👩‍👩‍👧🇩🇪🪶 — … “quoted” ‘q’ ∑√≠ \u2581under_score",
    "https://example.org/a?b=c&d=e#f <b>html</b> [INST] <|x|> </s>",
)
# Of more added tokens than this, only the first and the last are in the probe.
MAX_ADDED_TOKENS = 256
NUM_SHOWN = 3  # tokens behind a difference that an error shows


@runtime_checkable
class Reader(Protocol):
    """What cuts text into ids: `ChatTokenizer`, or transformers behind the same methods."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def token_text(self, id: int) -> str: ...


@dataclass(frozen=True)
class ProbeText:
    """A text, the ids that transformers gives it, and the text of these ids."""

    text: str
    ids: list[int]
    decoded: str


def probe_texts(added_tokens: Sequence[str]) -> list[str]:
    """The texts of a probe for a tokenizer with these added tokens."""
    half = MAX_ADDED_TOKENS // 2
    tokens = list(added_tokens)
    if len(tokens) > MAX_ADDED_TOKENS:
        tokens = tokens[:half] + tokens[-half:]
    return [*TEXTS, *(f"a{token}b  {token} {token}{token}\n{token.swapcase()}" for token in tokens)]


def make_probe(reader: Reader, texts: Sequence[str]) -> list[ProbeText]:
    """The probe of `texts` with the ids of `reader`."""
    encoded_texts = [reader.encode(text) for text in texts]
    return [
        ProbeText(text, ids, reader.decode(ids))
        for text, ids in zip(texts, encoded_texts, strict=True)
    ]


def find_difference(probe: Sequence[ProbeText], reader: Reader, name: str) -> str | None:
    """The first difference between `probe` and what `reader` makes of its texts, in words; None
    when there is none.

    `name` is what the words call `reader`.
    """
    for entry in probe:
        ids = reader.encode(entry.text)
        if ids != entry.ids:
            start = _first_difference(ids, entry.ids)
            return (
                f"{entry.text!r} differs from token {start} on: transformers has "
                f"{_show(entry.ids, start, reader)}, {name} has {_show(ids, start, reader)}"
            )
        text = reader.decode(ids)
        if text != entry.decoded:
            return (
                f"the tokens of {entry.text!r} are the text {entry.decoded!r} in transformers, "
                f"{text!r} in {name}"
            )
    return None


def to_json(probe: Sequence[ProbeText]) -> str:
    """The content of a probe file."""
    entries = [asdict(entry) for entry in probe]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=True) for entry in entries)
    return f'{{"texts": [\n{lines}\n]}}\n'


def read_probe(path: Path) -> list[ProbeText]:
    """The probe in a file.

    Raises BadInput when it cannot be read.
    """
    try:
        entries = json.loads(path.read_bytes())["texts"]
        probe = [ProbeText(entry["text"], entry["ids"], entry["decoded"]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error!r}); fetch it again") from error
    for entry in probe:
        is_text = isinstance(entry.text, str) and isinstance(entry.decoded, str)
        if not is_text or not isinstance(entry.ids, list):
            raise BadInput(f"{path} is not the probe of a tokenizer; fetch it again")
    return probe


def check_probe(folder: Path, reader: Reader) -> None:
    """Raise BadInput, showing the first difference, when `folder` has a probe and `reader` gives
    other ids.
    """
    path = folder / PROBE
    if not path.is_file():
        return
    difference = find_difference(read_probe(path), reader, "this folder")
    if difference is not None:
        raise BadInput(
            f"{folder}: its tokenizer files do not give the tokens that its model was measured "
            f"on: {difference}. Fetch or write the folder again; to use the files as they are, "
            f"delete {PROBE}"
        )


def _first_difference(ids: Sequence[int], other_ids: Sequence[int]) -> int:
    """The first position where two different sequences differ."""
    for position, (id_, other_id) in enumerate(zip(ids, other_ids, strict=False)):
        if id_ != other_id:
            return position
    return min(len(ids), len(other_ids))


def _show(ids: Sequence[int], start: int, reader: Reader) -> str:
    """Some ids from `start` on, with their texts."""
    shown_ids = ids[start : start + NUM_SHOWN]
    texts = ", ".join(f"{id_} {reader.token_text(id_)!r}" for id_ in shown_ids)
    return texts or "no token"
