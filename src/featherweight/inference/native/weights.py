"""A model in plain numpy, as the native library runs it: the bytes of every matrix, and the
numbers that its family computes with.

`reader` builds it from a folder and `engine.NativeEngine` hands it to the library. Nothing here
computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class MatrixWeights:
    """One matrix as it is stored.

    kind: float32, float16, bfloat16, int or trellis (see native/featherweight.h). shape: (rows,
    columns) without padding. bits: of a code. group: columns that share a scale, counted over the
    padded columns of the codes. zero: the zero point where `zeros` is None. state_bits, table and
    code_matrix: the trellis code. input_signs, output_signs: the sign bits of the rotations on both
    sides (None: no rotation). output_rotation: "none", "full" or "block64". bias: float32 (rows,).
    """

    kind: str
    shape: tuple[int, int]
    codes: Array
    bits: int = 0
    group: int = 0
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
    """One block: its matrices, its rotary frequencies and its norms (float32; None: no norm).

    key, value: None when the rows of `query` are those of query, key and value. up: None when the
    rows of `gate` are those of gate and up. frequencies: (rotary_width / 2,), see `ModelWeights`.
    window: tokens that attention can see, 0 for all.
    """

    query: MatrixWeights
    out: MatrixWeights
    gate: MatrixWeights
    down: MatrixWeights
    frequencies: Array
    key: MatrixWeights | None = None
    value: MatrixWeights | None = None
    up: MatrixWeights | None = None
    attention_norm: Array | None = None
    ffn_norm: Array | None = None
    after_attention_norm: Array | None = None
    after_ffn_norm: Array | None = None
    query_norm: Array | None = None
    key_norm: Array | None = None
    window: int = 0


@dataclass(frozen=True)
class ModelWeights:
    """Everything that the library needs of a model.

    context: positions that the library runs; full_context: those that the model was made for.
    rotary_width: the first numbers of each head, which turn with the position. rope_scale: factor
    of the cosines and sines. head: None when the embedding's table is the head. residual_scale:
    factor of what attention and the feed-forward network add to the residual. logit_divisor: logits
    are divided by it.
    joint_head_norms: the norms of queries and keys are over all heads together, not over each.
    num_bytes: size of the weight files. check: called before each use of the weights, raises
    BadInput when the files under them have changed. close: releases the files.
    """

    hidden: int
    vocab_size: int
    num_heads: int
    num_key_heads: int
    head_width: int
    rotary_width: int
    context: int
    full_context: int
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
    rope_scale: float = 1.0
    residual_scale: float = 1.0
    logit_divisor: float = 1.0
    joint_head_norms: bool = False
    fingerprint: str = ""
    description: str = ""
    num_bytes: int = 0
    check: Callable[[], None] = field(default=lambda: None)
    close: Callable[[], None] = field(default=lambda: None)
