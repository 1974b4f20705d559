"""Hadamard matrices built from quadratic residues, and the blocks that a size without one falls
back to.

A Hadamard matrix has entries +-1 and orthogonal rows. With chi the quadratic character of the field
GF(q) and Q[i, j] = chi(i - j), Paley's constructions give

    I    q = 3 mod 4, order q + 1:        I + [[0, 1], [-1, Q]]                                     (not symmetric)
    II   q = 1 mod 4, order 2 (q + 1):    B (x) [[1, 1], [1, -1]] + I (x) [[1, -1], [-1, -1]],  B = [[0, 1], [1, Q]]

for q a prime or, here, the square of one. Sizes are H_{2^p} (x) H_order with Sylvester's H_{2^p}.
No table is copied. Plain numpy, because the native engine rotates without torch.
"""

from __future__ import annotations

from functools import cache
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

# An order costs that many products a number; above this the blocks are cheaper and rotate well
# enough.
LARGEST_ORDER = 512
# Equal blocks smaller than this mix too little to be preferred to unequal ones.
SMALLEST_BLOCK = 64


@cache
def factors(n: int) -> tuple[int, int] | None:
    """(p, order) with n = 2^p * order and the smallest order that has a matrix; None when there is
    none.
    """
    order = n & -n  # the power of two in n
    odd = n // order
    power = order.bit_length() - 1
    for taken in range(power + 1):
        if odd << taken == 1 or (odd << taken <= LARGEST_ORDER and _field(odd << taken)):
            return power - taken, odd << taken
    return None


@cache
def plan(n: int, transpose: bool) -> tuple[int, int, NDArray[np.float32] | None]:
    """(power, order, right factor of a row block) of a size n that has a matrix, as the native
    library wants it.

    A row of n numbers is 2^power blocks of `order`; each block is multiplied by the factor (None:
    order 1), after butterflies between the blocks. Four butterflies between neighbours do not fill
    a vector, so a pure power of two multiplies blocks of 16 instead.
    """
    found = factors(n)
    assert found is not None, f"{n} has no single matrix"
    power, order = found
    if order == 1:
        taken = min(power, 4)
        kernel: NDArray[Any] = np.ones((1, 1))
        for _ in range(taken):
            kernel = np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5, kernel)
        power, order = power - taken, 1 << taken
    else:
        kernel = signs(order) / order**0.5
    right = kernel if transpose else kernel.T
    return power, order, None if order == 1 else np.ascontiguousarray(right, dtype=np.float32)


@cache
def block_plans(
    n: int, kind: str
) -> tuple[tuple[int, int, NDArray[np.float32] | None, NDArray[np.float32] | None], ...]:
    """(power, order, factor, factor of the inverse) of each diagonal block that rotates n numbers.

    `kind`: "full", or "block64" for blocks of 64 and what is left over.
    """
    whole = n // 64 if kind == "block64" else 0
    sizes = [64] * whole + list(blocks(n - 64 * whole) if n > 64 * whole else ())
    return tuple((*plan(size, False), plan(size, True)[2]) for size in sizes)


@cache
def blocks(n: int) -> tuple[int, ...]:
    """Sizes of the diagonal blocks that rotate n numbers: (n,) where n has a matrix; never fails
    for n >= 1.

    Else the largest divisor of at least 64 that has one, repeated; else greedily the largest that
    fits what is left.
    """
    if factors(n):
        return (n,)
    for size in range(n // 2, SMALLEST_BLOCK - 1, -1):
        if n % size == 0 and factors(size):
            return (size,) * (n // size)
    found, left = [], n
    while left:
        size = next(size for size in range(left, 0, -1) if factors(size))
        found.append(size)
        left -= size
    return tuple(found)


def signs(order: int) -> NDArray[np.float64]:
    """The +-1 matrix (order, order) of `factors`, float64."""
    if order == 1:
        return np.ones((1, 1))
    field = _field(order)
    assert field is not None, f"no Paley matrix of order {order}"
    q, second = field
    corner = np.zeros((q + 1, q + 1))
    corner[1:, 1:] = _characters(q)
    corner[0, 1:] = 1
    corner[1:, 0] = 1 if second else -1
    identity = np.eye(q + 1)
    if not second:
        return identity + corner
    minus = np.array([[1.0, -1.0], [-1.0, -1.0]])
    return np.kron(corner, minus[::-1] * np.array([[-1], [1]])) + np.kron(identity, minus)


def _field(order: int) -> tuple[int, bool] | None:
    """(q, second construction?) of a Paley matrix, or None."""
    if order % 4 == 0 and (order - 1) % 4 == 3 and _root(order - 1):
        return order - 1, False
    if order % 4 == 0 and (order // 2 - 1) % 4 == 1 and _root(order // 2 - 1):
        return order // 2 - 1, True
    return None


def _root(q: int) -> int:
    """The prime p with q = p or p^2, else 0."""
    root = isqrt(q)
    p = root if root * root == q else q
    return p if p > 2 and all(p % d for d in range(2, isqrt(p) + 1)) else 0


def _characters(q: int) -> NDArray[np.float64]:
    """chi(a_i - a_j) over all elements of GF(q), (q, q)."""
    p = _root(q)
    squares = {i * i % p for i in range(1, p)}
    index = np.arange(q)
    if p == q:
        table = np.array([0.0] + [1.0 if i in squares else -1.0 for i in range(1, p)])
        return np.asarray(table[(index[:, None] - index) % p])
    # GF(p^2) = a + b w with w^2 = the first non-residue; element i is (i // p, i % p).
    residue = next(i for i in range(2, p) if i not in squares)
    table = np.full(q, -1.0)
    for a in range(p):
        for b in range(p):
            table[(a * a + residue * b * b) % p * p + 2 * a * b % p] = 1
    table[0] = 0
    high = (index[:, None] // p - index // p) % p
    low = (index[:, None] % p - index % p) % p
    return np.asarray(table[high * p + low])
