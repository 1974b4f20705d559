"""The bytes that are read for one decoded token: every matrix of the blocks once, the head once,
and one row of the embedding.

Keys and values are read as well, the more the longer the text is. They are not counted, so a share
of the bandwidth that is computed from these bytes is too small and never too large.
"""

from __future__ import annotations

from ..inference.native.abi import MATRICES
from ..inference.native.weights import LayerWeights, MatrixWeights, ModelWeights


def bytes_per_token(model: ModelWeights) -> int:
    """Bytes of weights that the native engine reads for one token, without keys and values."""
    head = model.embedding if model.head is None else model.head
    row = stored_bytes(model.embedding) // model.embedding.shape[0]
    return row + stored_bytes(head) + sum(_layer_bytes(layer) for layer in model.layers)


def stored_bytes(matrix: MatrixWeights) -> int:
    """Bytes of codes, scales, zero points and bias."""
    arrays = (matrix.codes, matrix.scales, matrix.zeros, matrix.bias)
    return sum(int(array.nbytes) for array in arrays if array is not None)


def _layer_bytes(layer: LayerWeights) -> int:
    return sum(stored_bytes(getattr(layer, name)) for name in MATRICES)
