"""Cuts the documents of one corpus into sequences of one length, and interleaves several corpora
with the shares of a mix.

Plain text is joined and cut regardless of where documents begin, like evaluation windows. A
sequence of dialogues starts at the beginning of a dialogue. In use, a chat always begins with its
template, and the first token of a sequence gets most of the attention; so curvature from sequences
that begin in the middle of a turn would not represent real use. All random choices are seeded, and
the first n sequences do not depend on the number of sequences.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

Ids = tuple[int, ...]


def generator(seed: int, name: str) -> random.Random:
    """The random generator of one corpus. It does not depend on the other corpora, so that every
    mix gets the same sequences of a corpus.
    """
    return random.Random(
        int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
    )


def cut(documents: Sequence[Sequence[int]], length: int, prefix: Sequence[int] = ()) -> list[Ids]:
    """Join documents and cut them into sequences.

    Args: documents, token ids; length, the number of tokens of a sequence; prefix, tokens at the
    start of each sequence (a BOS). The tokens after the last full sequence are dropped.
    """
    body = length - len(prefix)
    tokens = [token for document in documents for token in document]
    return [(*prefix, *tokens[i : i + body]) for i in range(0, len(tokens) - body + 1, body)]


def pack(dialogues: Sequence[Sequence[int]], length: int, prefix: Sequence[int] = ()) -> list[Ids]:
    """Fill sequences with dialogues. Each sequence starts at the beginning of a dialogue; the
    tokens that no longer fit into it are dropped.

    Arguments as in `cut`.
    """
    body = length - len(prefix)
    sequences: list[Ids] = []
    buffer: list[int] = []
    for dialogue in dialogues:
        buffer += dialogue
        if len(buffer) >= body:
            sequences += cut([buffer], length, prefix)
            buffer = []
    return sequences


def unique(sequences: Sequence[Ids]) -> list[Ids]:
    """The sequences without repetitions, in the order of their first occurrence."""
    return list(dict.fromkeys(sequences))


def schedule(shares: Mapping[str, float], count: int) -> list[str]:
    """The corpus of each of `count` sequences. The next one is always the corpus whose count is
    furthest below its share; on a tie it is the first in `shares`.

    After any number of sequences the count of each corpus differs from its share by at most one.
    """
    total = sum(shares.values())
    counts = dict.fromkeys(shares, 0)
    order: list[str] = []
    for position in range(1, count + 1):
        lag = {name: share / total * position - counts[name] for name, share in shares.items()}
        name = max(lag, key=lambda name: lag[name])
        counts[name] += 1
        order.append(name)
    return order
