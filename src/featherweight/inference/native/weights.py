"""A model in plain numpy, as the native library is to run it: which bytes are which matrix, and
what stands between.

Read by `interchange.native_model` from a folder, handed over by `runtime.NativeEngine`. Nothing
here computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class MatrixWeights:
    """One matrix as stored.

    `kind` is float32, float16, bfloat16, int or trellis; see native/featherweight.h.
    """

    kind: str
    shape: tuple[int, int]
    codes: Array
    bits: int = 0
    group: int = 0  # columns that share a scale, of those that the codes hold
    scales: Array | None = None
    zeros: Array | None = None
    zero: int = 0
    state_bits: int = 0
    table: tuple[int, ...] = ()
    code_matrix: tuple[int, ...] = ()
    input_signs: bytes | None = None
    output_signs: bytes | None = None
    output_rotation: str = "none"
    bias: Array | None = None


@dataclass(frozen=True)
class LayerWeights:
    """One block: seven matrices, its norms (float32), its rotary frequencies and how far back it
    sees (0: all).
    """

    query: MatrixWeights
    key: MatrixWeights
    value: MatrixWeights
    out: MatrixWeights
    gate: MatrixWeights
    up: MatrixWeights
    down: MatrixWeights
    attention_norm: Array
    ffn_norm: Array
    frequencies: Array
    after_attention_norm: Array | None = None
    after_ffn_norm: Array | None = None
    query_norm: Array | None = None
    key_norm: Array | None = None
    window: int = 0


@dataclass(frozen=True)
class ModelWeights:
    """Everything the library needs to know; `head` None means the embedding's table."""

    hidden: int
    vocab_size: int
    num_heads: int
    num_key_heads: int
    head_width: int
    context: int
    layers: tuple[LayerWeights, ...]
    embedding: MatrixWeights
    head: MatrixWeights | None
    final_norm: Array
    epsilon: float
    attention_scale: float
    activation: str = "silu"
    attention_softcap: float = 0.0
    final_softcap: float = 0.0
    embedding_scale: float = 1.0
    fingerprint: str = ""
    description: str = ""
    num_bytes: int = 0
    # Called before each use of the weights; raises BadInput when the files under them have changed.
    check: Callable[[], None] = field(default=lambda: None)
    close: Callable[[], None] = field(default=lambda: None)
