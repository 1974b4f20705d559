"""Tables whose rows are stored rotated compute what the unrotated ones do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_weights import random_qweight

from featherweight.ops import hadamard
from featherweight.quantization.formats import Int, Trellis
from featherweight.quantization.formats.base import Format
from featherweight.quantization.layers import (
    CompressedEmbedding,
    TiedHead,
    keep_decoded,
)
from featherweight.quantization.transforms.hadamard import pack_signs, unpack_signs

INT = Int(bits=8)


def rotated_table(
    format: Format = INT, dtype: torch.dtype | None = None, scale: float | None = None
) -> Any:
    """300 rows of 84, stored rotated."""
    made = CompressedEmbedding(300, 84, format, scale, dtype, input_signs=True)
    made.fill(
        {
            **random_qweight(format, (300, 84)).tensors,
            "input_signs": pack_signs(torch.randn(84).sign()),
        }
    )
    return made


@pytest.mark.parametrize("format", [INT, Int(bits=4, group=28), Trellis(bits=4)])
def test_a_rotated_table_is_the_unrotated_function(format: Format) -> None:
    light = rotated_table(format, torch.float64)
    turn = hadamard.matrix(84) * unpack_signs(light.input_signs, 84).double()
    plain = light.dense(torch.float64) @ turn
    ids, x = torch.tensor([[0, 299, 5], [5, 5, 1]]), torch.randn(2, 84, dtype=torch.float64)
    torch.testing.assert_close(light(ids), plain[ids], rtol=0, atol=1e-11)
    torch.testing.assert_close(TiedHead(light)(x), x @ plain.T, rtol=0, atol=1e-9)
    torch.testing.assert_close(light.effective().double(), plain, rtol=1e-5, atol=1e-4)
    expected = light(ids)
    with keep_decoded(light):
        assert torch.equal(light(ids), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [None, 92**0.5])
def test_a_rotated_look_up_rounds_once(dtype: torch.dtype, scale: float | None) -> None:
    light = rotated_table(scale=scale).to(dtype)
    ids = torch.arange(300)
    rows = light.effective().to(dtype)
    assert light(ids).dtype == dtype
    expected = rows if scale is None else rows * torch.tensor(scale, dtype=dtype)
    assert torch.equal(light(ids), expected)
    with keep_decoded(light):
        assert torch.equal(light(ids), expected)
    assert light.input_signs.dtype == torch.uint8
    assert TiedHead(light)(torch.randn(84, dtype=dtype)).dtype == dtype
