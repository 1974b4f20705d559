"""Calibration sets: the tokens on which curvature is measured, with a fingerprint that identifies
them.

A set with too few kinds of text loses more quality than any rounding method gains (novels alone
have 57 % more KL on encyclopedia text), so the default mixes encyclopedia, novels, mathematics,
code and chat. Each corpus is tokenized separately, cut or packed into sequences of exactly `length`
tokens, and shuffled with the seed. Then the corpora are interleaved so that every prefix of the set
has the shares of the mix: the first half of the sequences has half of the sequences of each corpus.
Cost: the corpora of a mix are tokenized completely, which takes one or two seconds.
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
from . import packing
from .corpora import Dialogue, Document, corpus
from .mixes import SHIPPED_MIX, Mix
from .tokens import encode_documents, has_template, prefix, template_digest
from .user_files import read_documents


@dataclass(frozen=True)
class Calibration:
    """A calibration set.

    tokens: token ids, one sequence in each row. origins: the name of the corpus of each row.
    fingerprint: the description that recipes and reports record.
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
    """All unique sequences of one corpus, in the order in which they are used.

    num_tokens: number of tokens of the whole corpus. uses_template: whether any document was
    rendered with the chat template.
    """

    name: str
    licence: str
    sequences: list[packing.Ids]
    num_tokens: int
    uses_template: bool


def calibration(
    tokenizer: Any, count: int = 256, length: int = 512, seed: int = 0, mix: Mix = SHIPPED_MIX
) -> Calibration:
    """A calibration set of shipped corpora.

    Args: tokenizer, of transformers; count, the number of sequences, all different; length, the
    tokens of each; seed of the shuffles; mix, corpus name -> share. Raises UsageError for an
    unknown corpus, one for evaluation, or a share that is not positive; BadInput when a corpus has
    too little text, saying how much there is and how much is needed.
    """
    _check(count, length, mix)
    streams = {}
    for name in mix:
        entry = corpus(name)
        if entry.role != "calibration":
            raise UsageError(
                f"{name} is evaluation text; calibrating on it would make the results look too good"
            )
        streams[name] = _stream(tokenizer, entry.documents(), name, entry.licence, length, seed)
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
    """A calibration set of one list of documents (strings or `Dialogue`s).

    Args: name and licence of the documents in the fingerprint; the others as in `calibration`.
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
    """A calibration set of one string, tokenized as it is and cut every `length` tokens.

    Arguments and errors as in `calibration_from_documents`.
    """
    return calibration_from_documents(tokenizer, [text], count, length, seed, name)


def calibration_from_files(
    tokenizer: Any, *paths: Path | str, count: int = 256, length: int = 512, seed: int = 0
) -> Calibration:
    """A calibration set of a user's files: UTF-8 text, or JSON lines with `text`, `prompt` and
    `answer`, or `messages`, gzipped or not.

    Files are mixed in proportion to how much text they hold; only their names enter the
    fingerprint. Raises BadInput for a file that is missing, not UTF-8, malformed or empty, and when
    there is too little text; UsageError for no file, or two files of one name.
    """
    if not paths:
        raise UsageError("no calibration file was given")
    streams: dict[str, _Stream] = {}
    for path in map(Path, paths):
        if path.name in streams:
            raise UsageError(
                f"two calibration files are called {path.name}; "
                "their fingerprints would be the same"
            )
        documents = read_documents(path)
        streams[path.name] = _stream(
            tokenizer, documents, path.name, "the user's own", length, seed
        )
    shares = {
        name: float(len(stream.sequences)) for name, stream in streams.items() if stream.sequences
    }
    if not shares:
        num_tokens = sum(stream.num_tokens for stream in streams.values())
        raise BadInput(
            f"the calibration files hold {num_tokens} tokens; one sequence needs {length}"
        )
    _check(count, length, shares)
    return _interleave(tokenizer, streams, shares, count, length, seed)


def blend(shares: Sequence[tuple[Calibration, float]], count: int) -> Calibration:
    """One calibration set of several interleaved ones, such as shipped text and text of the model.

    Args: shares, each set with its share; count, the number of sequences. Raises UsageError when
    the lengths of their sequences differ, BadInput when a set has too few sequences for its share.
    """
    sets = [calibration_set for calibration_set, _ in shares]
    lengths = {calibration_set.tokens.shape[1] for calibration_set in sets}
    if len(lengths) != 1:
        raise UsageError(
            f"parts of {sorted(lengths)} tokens cannot be blended; sequences have one length"
        )
    order = packing.schedule({str(i): share for i, (_, share) in enumerate(shares)}, count)
    counts = Counter(map(int, order))
    licences: dict[str, str] = {}
    for i, calibration_set in enumerate(sets):
        if counts[i] > len(calibration_set):
            raise BadInput(
                f"part {i} of the blend has {len(calibration_set)} sequences; "
                f"its share needs {counts[i]}"
            )
        sources = calibration_set.fingerprint["sources"]
        licences.update({entry["name"]: entry["licence"] for entry in sources})
    supply = [
        zip(calibration_set.tokens, calibration_set.origins, strict=True)
        for calibration_set in sets
    ]
    rows = [next(supply[int(i)]) for i in order]
    tokens = torch.stack([row for row, _ in rows])
    origins = tuple(origin for _, origin in rows)
    fingerprints = [calibration_set.fingerprint for calibration_set in sets]
    template = next((entry["template"] for entry in fingerprints if entry["template"]), None)
    facts = fingerprints[0] | {"template": template}
    return Calibration(tokens, origins, fingerprint(tokens, origins, licences, facts))


def fingerprint(
    tokens: Int64[Tensor, "count length"],
    origins: Sequence[str],
    licences: Mapping[str, str],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The description of a calibration set in a report: the amount of each corpus, and a hash of
    the tokens.

    Args: origins, the corpus of each row; licences by corpus; facts, with "seed", "bos" (whether
    sequences start with a BOS) and "template" (the digest of the chat template, or None).
    """
    count, length = tokens.shape
    sources = [
        {
            "name": name,
            "licence": licences[name],
            "sequences": num_sequences,
            "tokens": num_sequences * length,
        }
        for name, num_sequences in Counter(origins).items()
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
    """Tokenize a corpus, shuffle its documents, cut or pack them, and shuffle the sequences."""
    generator = packing.generator(seed, name)
    is_dialogue = [isinstance(document, Dialogue) for document in documents]
    encoded_documents = encode_documents(tokenizer, documents)
    generator.shuffle(encoded_documents)
    divide = packing.pack if documents and all(is_dialogue) else packing.cut
    sequences = packing.unique(divide(encoded_documents, length, prefix(tokenizer)))
    generator.shuffle(sequences)
    uses_template = has_template(tokenizer) and any(is_dialogue)
    num_tokens = sum(map(len, encoded_documents))
    return _Stream(name, licence, sequences, num_tokens, uses_template)


def _interleave(
    tokenizer: Any, streams: Mapping[str, _Stream], shares: Mix, count: int, length: int, seed: int
) -> Calibration:
    order = packing.schedule(shares, count)
    counts = Counter(order)
    for name, stream in streams.items():
        if counts[name] > len(stream.sequences):
            raise BadInput(
                f"calibration source {name} has {stream.num_tokens} tokens "
                f"({len(stream.sequences)} sequences of {length}); {counts[name]} sequences "
                f"({counts[name] * length} tokens) are needed for {count} in all; "
                "ask for fewer or shorter sequences, or give more text"
            )
    supply = {name: iter(stream.sequences) for name, stream in streams.items()}
    tokens = torch.tensor([next(supply[name]) for name in order], dtype=torch.int64)
    licences = {stream.name: stream.licence for stream in streams.values()}
    uses_template = any(streams[name].uses_template for name in counts)
    facts = {
        "seed": seed,
        "bos": bool(prefix(tokenizer)),
        "template": template_digest(tokenizer) if uses_template else None,
    }
    return Calibration(tokens, tuple(order), fingerprint(tokens, order, licences, facts))
