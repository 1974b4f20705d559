"""Bytes that one decoded token reads: every matrix once, the table once more when it is the head,
and one of its rows.

Keys and values come on top as the text grows; they are left out, so that a share of the bandwidth
is never flattered.
"""

from __future__ import annotations

from ..inference.native.weights import LayerWeights, MatrixWeights, ModelWeights

MATRICES = ("query", "key", "value", "out", "gate", "up", "down")


def bytes_per_token(model: ModelWeights) -> int:
    """What the native engine reads of `model`'s weights for one token, without keys and values."""
    head = model.embedding if model.head is None else model.head
    row = stored_bytes(model.embedding) // model.embedding.shape[0]
    return row + stored_bytes(head) + sum(_layer(layer) for layer in model.layers)


def stored_bytes(matrix: MatrixWeights) -> int:
    """Codes, scales, zeros and bias."""
    parts = (matrix.codes, matrix.scales, matrix.zeros, matrix.bias)
    return sum(int(part.nbytes) for part in parts if part is not None)


def _layer(layer: LayerWeights) -> int:
    return sum(stored_bytes(getattr(layer, name)) for name in MATRICES)
