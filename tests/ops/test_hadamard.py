"""Rotations: the matrices are Hadamard, the transform multiplies by the matrix, the inverse is the
transpose, and no size fails.
"""

from __future__ import annotations

import pytest
import torch

from featherweight.base.errors import UsageError
from featherweight.ops import hadamard, library
from featherweight.ops.paley import factors, signs

ISAS = library.available()
ORDERS = [12, 20, 28, 36, 44, 52, 60, 76, 84, 100, 108, 124, 140, 244, 284]
WIDTHS = [1, 2, 3, 8, 12, 24, 40, 64, 80, 192, 208, 210, 346, 576, 1536]


@pytest.mark.parametrize("order", ORDERS)
def test_orders_are_hadamard(order: int) -> None:
    h = torch.from_numpy(signs(order))
    assert (h.abs() == 1).all()
    assert torch.equal(h @ h.T, order * torch.eye(order, dtype=torch.float64))


def test_first_construction_is_not_symmetric() -> None:
    """A symmetric matrix does not show when its transpose is used instead, so the other tests need
    these orders, which are not symmetric.
    """
    for order in (12, 20):
        assert (signs(order) != signs(order).T).any()
    for order in (28, 36, 52):
        assert (signs(order) == signs(order).T).all()


@pytest.mark.parametrize(
    ("n", "power_and_order"),
    [
        (576, (4, 36)),
        (1536, (7, 12)),
        (192, (4, 12)),
        (49152, (12, 12)),
        (2048, (11, 1)),
        (4544, (4, 284)),
        (3, None),
    ],
)
def test_factors(n: int, power_and_order: tuple[int, int] | None) -> None:
    assert factors(n) == power_and_order


def test_no_size_fails() -> None:
    for n in [*range(1, 300), 1002, 4870, 11008, 49153]:
        sizes = hadamard.blocks(n)
        assert sum(sizes) == n
        assert all(factors(size) for size in sizes)
    assert hadamard.blocks(576) == (576,)
    assert hadamard.blocks(210) == (208, 2)
    assert hadamard.blocks(11008) == (256,) * 43
    with pytest.raises(UsageError, match="0 numbers"):
        hadamard.blocks(0)


@pytest.mark.parametrize("n", WIDTHS)
@pytest.mark.parametrize("isa", ["reference", *ISAS])
def test_transform_is_the_matrix(isa: str, n: int) -> None:
    h, x = hadamard.matrix(n), torch.randn(3, 2, n)
    assert torch.allclose(h @ h.T, torch.eye(n, dtype=torch.float64), atol=1e-12)
    forward, backward = x.double() @ h.T, x.double() @ h
    assert torch.allclose(hadamard.transform(x, isa=isa).double(), forward, atol=1e-5)
    assert torch.allclose(hadamard.transform(x, True, isa=isa).double(), backward, atol=1e-5)
    assert torch.allclose(hadamard.transform(x.double()), forward, atol=1e-12)
    assert torch.allclose(
        hadamard.transform(hadamard.transform(x, isa=isa), True, isa=isa), x, atol=1e-5
    )


def test_input_is_left_alone_and_strides_do_not_matter() -> None:
    x = torch.randn(36, 5)
    copy = x.clone()
    assert torch.allclose(hadamard.transform(x.T), hadamard.transform(x.T.contiguous()), atol=1e-6)
    assert torch.equal(x, copy)


@pytest.mark.skipif(library.library() is None, reason="no native library")
def test_isas_and_threads_give_the_same_bits() -> None:
    for n in (20, 256, 210, 576):
        x = torch.randn(67, n)
        first = hadamard.transform(x, isa="scalar", threads=1)
        for isa in ISAS:
            for threads in (1, 2, 3):
                assert torch.equal(hadamard.transform(x, isa=isa, threads=threads), first)


def test_gradient_and_other_dtypes_go_through_the_reference() -> None:
    x = torch.randn(2, 12, requires_grad=True)
    hadamard.transform(x).square().sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, 2 * x.detach(), atol=1e-5)
    assert hadamard.transform(x.detach().bfloat16()).dtype == torch.bfloat16
