"""The two differences between tensors in GGUF files and in transformers: the order of the rows of q
and k, and the offset of norms.

Rotary embeddings rotate pairs of rows of a head. llama.cpp pairs neighbouring rows, transformers
pairs rows that are half a head apart. So GGUF stores the rows `(head, half, pair)` of Llama's q and
k in the order `(head, pair, half)`.

Gemma's norms multiply by 1 + w, and GGUF stores the sum s = 1 + w, rounded to float32. The reader
needs a float32 w whose sum 1 + w rounds to s. If any such w exists, s - 1 computed in float32 is
one: for s from 1/2 to 2^24 the subtraction is exact; below 1/2 it is exact for multiples of 2^-24,
and every sum of 1 and a float32 number in that range is such a multiple. A number s for which no w
exists raises BadInput. The w that is read may differ from the w that was written in the bits that
rounding the sum removes, and no computation depends on these bits.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from ...base.errors import BadInput
from ...models.families import Family

# Llama 3's divisors of the rotary frequencies, which transformers computes from the configuration.
ROPE_DIVISORS = "rope_freqs.weight"
# LongRoPE's divisors, which the configuration holds.
SHORT_DIVISORS, LONG_DIVISORS = "rope_factors_short.weight", "rope_factors_long.weight"


def permuted_heads(name: str, family: Family, num_heads: int, num_key_heads: int) -> int | None:
    """The number of heads of the tensor `name` when GGUF stores its rows in another order; None
    when the order is the same, as for most tensors.
    """
    if not family.gguf.interleaved_heads:
        return None
    if ".q_proj." in name:
        return num_heads
    return num_key_heads if ".k_proj." in name else None


def row_permutation(num_rows: int, heads: int) -> Tensor:
    """The rows `(head, half, pair)` in the order `(head, pair, half)`: GGUF row -> model row."""
    return torch.arange(num_rows).view(heads, 2, -1).transpose(1, 2).reshape(-1)


def restore_rows(
    rows: Float32[np.ndarray, "rows ..."], heads: int
) -> Float32[np.ndarray, "rows ..."]:
    """Reorder rows from llama.cpp's order `(head, pair, half)` to transformers' order
    `(head, half, pair)`.
    """
    return np.ascontiguousarray(
        rows.reshape(heads, len(rows) // heads // 2, 2, -1).swapaxes(1, 2)
    ).reshape(rows.shape)


def has_offset(name: str, family: Family) -> bool:
    """Whether GGUF stores `name` with the family's norm offset added."""
    return family.norm_offset != 0 and name.endswith("norm.weight")


def add_offset(weight: Tensor, family: Family) -> Tensor:
    """The weights of a norm as GGUF stores them: float32, the offset added in float32."""
    return weight.float() + family.norm_offset


def subtract_offset(
    sums: Float32[np.ndarray, " width"], family: Family, tensor_name: str
) -> Float32[np.ndarray, " width"]:
    """Weights w of a norm with `w + offset == sums` in float32.

    Raises BadInput, with `tensor_name`, when no float32 numbers give that sum.
    """
    offset = np.float32(family.norm_offset)
    weight = sums - offset
    if num := int(np.count_nonzero(weight + offset != sums)):
        raise BadInput(
            f"{tensor_name}: {num} of {sums.size} weights are no float32 number plus "
            f"{family.norm_offset:g}, as {family.model_type} computes them; give the original model"
        )
    return weight
