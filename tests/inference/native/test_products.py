"""Products with every format on every instruction set give the bits of integer arithmetic, also in
awkward shapes.
"""

from __future__ import annotations

import gc

import numpy as np
import pytest
from tests import products

from featherweight.base.errors import UsageError
from featherweight.inference.native.product import multiply
from featherweight.inference.native.weights import MatrixWeights
from featherweight.ops import library

pytestmark = pytest.mark.skipif(library.library() is None, reason="no native library")
ISAS = library.available()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (35, 96), (192, 64), (300, 160)])
def test_isas_equal_twin_int(bits: int, rows: int, columns: int) -> None:
    for group, zeros in ((None, False), (None, True), (32, False), (32, True)):
        products.check(*products.int_matrix(rows, columns, bits, group, zeros), ISAS)
    products.check(*products.int_matrix(rows, columns, bits), ISAS, planes=2)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("L", [8, 12, 14, 16])
@pytest.mark.parametrize("table", ["random", "extreme", "nibbles"])
def test_isas_equal_twin_trellis(bits: int, L: int, table: str) -> None:
    shapes = ((64, 64), (192, 128), (256, 64), (320, 64), (576, 64), (250, 210))
    rows, columns = shapes[(bits + L) % len(shapes)]
    products.check(*products.trellis_matrix(rows, columns, bits, L, table), ISAS)
    products.check(*products.trellis_matrix(70, 64, bits, L, table), ISAS, planes=2)


@pytest.mark.parametrize("rows", [64, 192, 256, 320, 576])
def test_every_row_tail(rows: int) -> None:
    for bits in (1, 2, 3, 4):
        products.check(*products.trellis_matrix(rows, 64, bits, 12), ISAS)


def test_maddubs_never_saturates() -> None:
    """Pairs of products are added in sixteen bits: the largest codes times 127 must still fit."""
    for bits in range(2, 9):
        products.check(*products.int_matrix(16, 64, bits, fill="highest"), ISAS)
    for bits in (1, 2, 3, 4):
        products.check(*products.trellis_matrix(64, 64, bits, 12, "extreme"), ISAS)


def test_sign_of_minus_128() -> None:
    """Code 0 of eight bits minus its zero point is -128, and a byte cannot hold +128."""
    products.check(*products.int_matrix(16, 64, 8, fill="lowest"), ISAS)


def test_dpbusd_operand_order() -> None:
    """Codes are unsigned and activations signed; 255 times -127 is wrong when they are swapped."""
    matrix, weights = products.int_matrix(16, 32, 8, fill="highest")
    x = np.full((1, 32), -127, np.float32)
    for isa in ISAS:
        np.testing.assert_array_equal(
            multiply(matrix, x, isa=isa), products.expected(matrix, weights, x)
        )
    assert (products.expected(matrix, weights, x) < 0).all()


def test_unaligned_weights() -> None:
    products.check(*products.int_matrix(35, 96, 4, 32, odd=True), ISAS)
    products.check(*products.int_matrix(35, 96, 3, odd=True), ISAS)
    products.check(*products.trellis_matrix(192, 128, 2, 12, odd=True), ISAS)
    random = np.random.default_rng(0)
    dense = random.standard_normal((20, 50)).astype(np.float16)
    x = random.standard_normal((3, 50)).astype(np.float32)
    bits = (dense.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)  # cut to bfloat16
    bfloat16 = (bits.astype(np.uint32) << 16).view(np.float32)
    for kind, weights, numbers in (("float16", dense, dense), ("bfloat16", bits, bfloat16)):
        for isa in ISAS:
            product = multiply(
                MatrixWeights(kind, (20, 50), products.at_odd_address(weights)), x, isa=isa
            )
            np.testing.assert_allclose(
                product, x @ numbers.astype(np.float32).T, rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize(("columns", "group"), [(40, 8), (48, 24), (72, 36), (96, 48)])
def test_groups_that_end_inside_a_chunk(columns: int, group: int) -> None:
    """Such groups have no kernel for int8 activations; padding must not be read past the scales."""
    matrix, weights = products.int_matrix(20, columns, 4, group, zeros=True)
    x = products.vectors(columns)
    for isa in ISAS:
        np.testing.assert_allclose(
            multiply(matrix, x, isa=isa),
            products.expected(matrix, weights, x),
            rtol=1e-4,
            atol=1e-3,
        )


def test_ctypes_keeps_tensors_alive() -> None:
    """The structures hold bare addresses; what they point at must survive until the library is
    done.
    """
    matrix, weights = products.trellis_matrix(64, 64, 2, 12)
    x = products.vectors(64)
    reference = products.expected(matrix, weights, x)
    for _ in range(3):
        product = multiply(matrix, products.vectors(64))
        gc.collect()
        np.testing.assert_array_equal(product, reference)


def test_wrong_calls_are_clear_errors() -> None:
    matrix, _ = products.int_matrix(16, 32, 4)
    with pytest.raises(UsageError, match="do not fit"):
        multiply(matrix, np.zeros((1, 31), np.float32))
    with pytest.raises(UsageError, match="refuses"):
        multiply(matrix, np.zeros((1, 32), np.float32), planes=3)
    with pytest.raises(UsageError, match="refuses"):
        multiply(matrix, np.zeros((0, 32), np.float32))
