"""Calibration tokens: what curvature is measured on, with a fingerprint that says exactly what it
was.

Too few kinds of text cost more than any rounding method gains (calibrating on novels alone: +57 %
KL on encyclopedia text), so the default mixes encyclopedia, novels, mathematics, code and chat.
Sources are tokenised apart, cut or packed into sequences of exactly `length` tokens, shuffled under
the seed and interleaved so that every prefix has the mix's shares: half the sequences are half of
everything. Cost: the sources of a mix are tokenised whole, one or two seconds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ..base.errors import BadInput, UsageError
from . import packing as seq
from .corpora import Dialogue, Document, corpus
from .mixes import SHIPPED, Mix
from .tokens import encode_documents, has_template, prefix, template_digest
from .user_files import read_documents


@dataclass(frozen=True)
class Calibration:
    """`tokens[i]` is one sequence, cut from source `origins[i]`; `fingerprint` is what recipes and
    reports record.
    """

    tokens: Int64[Tensor, "count length"]
    origins: tuple[str, ...]
    fingerprint: dict[str, Any] = field(compare=False)

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __iter__(self) -> Iterator[Int64[Tensor, " length"]]:
        return iter(self.tokens)


@dataclass(frozen=True)
class _Stream:
    """Everything one source can give: its unique sequences in the order in which they are taken."""

    name: str
    licence: str
    sequences: list[seq.Ids]
    num_tokens: int
    templated: bool


def calibration(
    tokenizer: Any, count: int = 256, length: int = 512, seed: int = 0, mix: Mix = SHIPPED
) -> Calibration:
    """`count` unique sequences of exactly `length` tokens from the shipped sources in the shares of
    `mix`.

    Raises UsageError for an unknown or an evaluation source or a share that is not positive,
    BadInput when a source has too little text, saying how much there is and how much is needed.
    """
    _check(count, length, mix)
    streams = {}
    for name in mix:
        found = corpus(name)
        if found.role != "calibration":
            raise UsageError(
                f"{name} is evaluation text; calibrating on it would make every result a lie"
            )
        streams[name] = _stream(tokenizer, found.documents(), name, found.licence, length, seed)
    return _interleave(tokenizer, streams, mix, count, length, seed)


def calibration_from_documents(
    tokenizer: Any,
    documents: Sequence[Document],
    count: int = 256,
    length: int = 512,
    seed: int = 0,
    name: str = "text",
    licence: str = "the user's own",
) -> Calibration:
    """The same from one list of documents (strings or `Dialogue`s).

    Raises BadInput when there is too little text.
    """
    _check(count, length, {name: 1.0})
    streams = {name: _stream(tokenizer, documents, name, licence, length, seed)}
    return _interleave(tokenizer, streams, {name: 1.0}, count, length, seed)


def calibration_from_text(
    tokenizer: Any,
    text: str,
    count: int = 256,
    length: int = 512,
    seed: int = 0,
    name: str = "text",
) -> Calibration:
    """The same from one string, tokenised as it is and cut every `length` tokens."""
    return calibration_from_documents(tokenizer, [text], count, length, seed, name)


def calibration_from_files(
    tokenizer: Any, *paths: Path | str, count: int = 256, length: int = 512, seed: int = 0
) -> Calibration:
    """The same from a user's files: UTF-8 text, or JSON lines with `text`, `prompt` and `answer`,
    or `messages`, either also gzipped. Files are mixed in proportion to how much text they hold;
    only their names enter the fingerprint.

    Raises BadInput for a file that is missing, not UTF-8, malformed or empty, and when there is too
    little text.
    """
    if not paths:
        raise UsageError("no calibration file was given")
    streams: dict[str, _Stream] = {}
    for path in map(Path, paths):
        if path.name in streams:
            raise UsageError(
                f"two calibration files are called {path.name}; their fingerprints would be the same"
            )
        documents = read_documents(path)
        streams[path.name] = _stream(
            tokenizer, documents, path.name, "the user's own", length, seed
        )
    shares = {
        name: float(len(stream.sequences)) for name, stream in streams.items() if stream.sequences
    }
    if not shares:
        have = sum(stream.num_tokens for stream in streams.values())
        raise BadInput(f"the calibration files hold {have} tokens; one sequence needs {length}")
    _check(count, length, shares)
    return _interleave(tokenizer, streams, shares, count, length, seed)


def blend(parts: Sequence[tuple[Calibration, float]], count: int) -> Calibration:
    """Interleave sequences that were made apart (say shipped text and `generated`), each with its
    share.

    Raises UsageError when their lengths differ, BadInput when a part has too few sequences.
    """
    lengths = {part.tokens.shape[1] for part, _ in parts}
    if len(lengths) != 1:
        raise UsageError(
            f"parts of {sorted(lengths)} tokens cannot be blended; sequences have one length"
        )
    order = seq.schedule({str(i): share for i, (_, share) in enumerate(parts)}, count)
    needed = Counter(map(int, order))
    licences: dict[str, str] = {}
    for i, (part, _) in enumerate(parts):
        if needed[i] > len(part):
            raise BadInput(
                f"part {i} of the blend has {len(part)} sequences; its share needs {needed[i]}"
            )
        licences.update({entry["name"]: entry["licence"] for entry in part.fingerprint["sources"]})
    supply = [zip(part.tokens, part.origins, strict=True) for part, _ in parts]
    rows = [next(supply[int(i)]) for i in order]
    tokens = torch.stack([row for row, _ in rows])
    origins = tuple(origin for _, origin in rows)
    facts = [part.fingerprint for part, _ in parts]
    template = next((found["template"] for found in facts if found["template"]), None)
    return Calibration(
        tokens, origins, fingerprint(tokens, origins, licences, facts[0] | {"template": template})
    )


def fingerprint(
    tokens: Int64[Tensor, "count length"],
    origins: Sequence[str],
    licences: Mapping[str, str],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """What a report says of `tokens`: how much of which source, and a hash; `facts` has the seed,
    BOS and template.
    """
    count, length = tokens.shape
    sources = [
        {"name": name, "licence": licences[name], "sequences": used, "tokens": used * length}
        for name, used in Counter(origins).items()
    ]
    return {
        "sources": sources,
        "sequences": count,
        "length": length,
        "seed": facts["seed"],
        "tokens_sha256": digest(tokens),
        "bos": facts["bos"],
        "template": facts["template"],
    }


def digest(tokens: Int64[Tensor, "count length"]) -> str:
    """SHA-256 of the token ids as little-endian 64-bit integers, row by row."""
    return hashlib.sha256(tokens.numpy().astype("<i8").tobytes()).hexdigest()


def _check(count: int, length: int, mix: Mapping[str, float]) -> None:
    if count < 1 or length < 2:
        raise UsageError(
            f"calibration needs at least 1 sequence of at least 2 tokens, not {count} of {length}"
        )
    if not mix or any(not share > 0 for share in mix.values()):
        raise UsageError(f"every share of a calibration mix must be positive: {dict(mix)}")


def _stream(
    tokenizer: Any, documents: Sequence[Document], name: str, licence: str, length: int, seed: int
) -> _Stream:
    """Tokenise a source whole, then order it: documents are shuffled, cut or packed, and the pieces
    shuffled again.
    """
    chance = seq.generator(seed, name)
    dialogues = bool(documents) and all(isinstance(document, Dialogue) for document in documents)
    encoded = encode_documents(tokenizer, documents)
    chance.shuffle(encoded)
    first = prefix(tokenizer)
    pieces = seq.unique((seq.pack if dialogues else seq.cut)(encoded, length, first))
    chance.shuffle(pieces)
    templated = has_template(tokenizer) and any(
        isinstance(document, Dialogue) for document in documents
    )
    return _Stream(name, licence, pieces, sum(map(len, encoded)), templated)


def _interleave(
    tokenizer: Any, streams: Mapping[str, _Stream], shares: Mix, count: int, length: int, seed: int
) -> Calibration:
    order = seq.schedule(shares, count)
    needed = Counter(order)
    for name, stream in streams.items():
        if needed[name] > len(stream.sequences):
            raise BadInput(
                f"calibration source {name} has {stream.num_tokens} tokens ({len(stream.sequences)} sequences of "
                f"{length}); {needed[name]} sequences ({needed[name] * length} tokens) are needed for {count} in all; "
                "ask for fewer or shorter sequences, or give more text"
            )
    supply = {name: iter(stream.sequences) for name, stream in streams.items()}
    tokens = torch.tensor([next(supply[name]) for name in order], dtype=torch.int64)
    licences = {stream.name: stream.licence for stream in streams.values()}
    templated = any(streams[name].templated for name in needed)
    facts = {
        "seed": seed,
        "bos": bool(prefix(tokenizer)),
        "template": template_digest(tokenizer) if templated else None,
    }
    return Calibration(tokens, tuple(order), fingerprint(tokens, order, licences, facts))
