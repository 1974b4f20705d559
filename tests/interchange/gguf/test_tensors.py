"""The order of rows and the offset of norms are undone exactly, or the file is refused."""

from __future__ import annotations

import exporting
import numpy as np
import pytest
import tiny_gguf
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featherweight.base.errors import BadInput
from featherweight.interchange.gguf.tensors import (
    add_offset,
    has_offset,
    permuted_heads,
    restore_rows,
    row_permutation,
    subtract_offset,
)
from featherweight.models import families

WEIGHTS = st.floats(-(2.0**20), 2.0**20, width=32)


def test_restored_rows_are_the_inverse() -> None:
    rows = np.arange(24, dtype=np.float32).reshape(12, 2)
    assert np.array_equal(restore_rows(tiny_gguf.interleave(rows, 3), 3), rows)
    bias = np.arange(12, dtype=np.float32)
    assert np.array_equal(restore_rows(tiny_gguf.interleave(bias, 3), 3), bias)
    assert restore_rows(np.arange(4, dtype=np.float32), 1).tolist() == [0, 2, 1, 3]
    order = row_permutation(12, 3)
    assert np.array_equal(rows[order], tiny_gguf.interleave(rows, 3))


def test_which_tensors_change() -> None:
    name = "model.layers.0.self_attn.{}.weight"
    assert permuted_heads(name.format("q_proj"), families.LLAMA, 4, 2) == 4
    assert permuted_heads(name.format("k_proj"), families.LLAMA, 4, 2) == 2
    assert permuted_heads(name.format("v_proj"), families.LLAMA, 4, 2) is None
    assert permuted_heads(name.format("q_proj"), families.GEMMA2, 4, 2) is None
    assert has_offset(name.format("q_norm"), families.GEMMA3)
    assert has_offset("model.norm.weight", families.GEMMA2)
    assert not has_offset("model.norm.weight", families.LLAMA)
    assert not has_offset(name.format("q_proj"), families.GEMMA3)


@given(arrays(np.float32, 16, elements=WEIGHTS))
def test_whatever_was_added_is_subtracted(weight: np.ndarray) -> None:
    """The w that comes back has the same 1 + w in float32, which is all that a model computes."""
    sums = add_offset(torch.from_numpy(weight), families.GEMMA2).numpy()
    read = subtract_offset(sums, families.GEMMA2, "norm")
    assert read.dtype == np.float32
    assert np.array_equal(np.float32(1) + read, sums)


@pytest.mark.parametrize("sum_", [0.1, 1e-9, -0.1])
def test_a_sum_that_no_weight_gives_is_refused(sum_: float) -> None:
    sums = np.array([1.5, sum_], np.float32)
    with pytest.raises(BadInput, match="norm: 1 of 2 weights are no float32 number plus 1"):
        subtract_offset(sums, families.GEMMA3, "norm")


def test_weights_of_narrow_dtypes_come_back_as_they_were() -> None:
    """bf16 weights below 1 have no bits that the sum would round away."""
    weight = torch.linspace(-0.9, 0.9, 1001).bfloat16()
    sums = add_offset(weight, families.GEMMA2).numpy()
    read = torch.from_numpy(subtract_offset(sums, families.GEMMA2, "norm"))
    large = weight.abs() >= 2.0**-16
    assert torch.equal(read[large], weight.float()[large])


def test_the_tiny_gemmas_have_bits_that_the_sum_rounds_away() -> None:
    """Else the test of equal sums would show nothing."""
    model, _ = exporting.gemma2()
    weight = model.state_dict()["model.norm.weight"]
    assert not torch.equal((weight + 1) - 1, weight)
