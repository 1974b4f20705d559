"""From the documents of one corpus to sequences of exactly one length, and from several corpora to
one interleaved list with the shares of a mix.

Plain text is joined and cut regardless of where documents begin, as evaluation windows are. A
dialogue starts a sequence: a chat always begins with its template, and the first token of a
sequence gets most of the attention, so a sequence that starts in the middle of a turn would measure
something that never happens. Everything is seeded, and the first n sequences do not depend on how
many follow.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

Ids = tuple[int, ...]


def generator(seed: int, name: str) -> random.Random:
    """A random generator for each corpus, so that every mix gets the same sequences of a corpus."""
    return random.Random(
        int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
    )


def cut(documents: Sequence[Sequence[int]], length: int, prefix: Sequence[int] = ()) -> list[Ids]:
    """Join documents and cut them into sequences.

    Args: documents, token ids; length, the tokens of a sequence; prefix, tokens at the start of
    each (a BOS). The tokens behind the last full sequence are dropped.
    """
    body = length - len(prefix)
    tokens = [token for document in documents for token in document]
    return [(*prefix, *tokens[i : i + body]) for i in range(0, len(tokens) - body + 1, body)]


def pack(dialogues: Sequence[Sequence[int]], length: int, prefix: Sequence[int] = ()) -> list[Ids]:
    """Dialogues, one after the other from the start of a sequence until it is full; the tokens that
    do not fit are dropped.

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
    """The corpus of each of `count` sequences: always the one whose count lags its share most, the
    first named on a tie.

    After any number of sequences the count of each corpus is within one of its share.
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
