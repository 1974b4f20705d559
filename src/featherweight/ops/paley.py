"""Hadamard matrices from quadratic residues (Paley), and the diagonal blocks for a size that has no
such matrix.

A Hadamard matrix has entries +-1 and orthogonal rows. With chi the quadratic character of the field
GF(q) and Q[i, j] = chi(i - j), Paley's constructions give

    I    q = 3 mod 4, order q + 1, not symmetric:
         I + [[0, 1], [-1, Q]]
    II   q = 1 mod 4, order 2 (q + 1):
         B (x) [[1, 1], [1, -1]] + I (x) [[1, -1], [-1, -1]] with B = [[0, 1], [1, Q]]

where q is a prime or the square of one. The matrix of a size n = 2^p order is H_{2^p} (x) H_order
with Sylvester's H_{2^p}. This module uses numpy only, because the native engine rotates without
torch.
"""

from __future__ import annotations

from functools import cache
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A matrix of order m costs m multiplications for each number. For larger orders than this, diagonal
# blocks are cheaper and mix enough numbers.
LARGEST_ORDER = 512
# Blocks smaller than this mix too few numbers. Then larger blocks of unequal sizes are used.
SMALLEST_BLOCK = 64


@cache
def factors(n: int) -> tuple[int, int] | None:
    """(p, order) with n = 2^p * order, where order is the smallest one that has a matrix; None when
    there is none.
    """
    power_of_two = n & -n  # the largest one that divides n
    odd = n // power_of_two
    power = power_of_two.bit_length() - 1
    for order_power in range(power + 1):
        order = odd << order_power
        if order == 1 or (order <= LARGEST_ORDER and _field(order)):
            return power - order_power, order
    return None


@cache
def factorization(n: int, transpose: bool) -> tuple[int, int, NDArray[np.float32] | None]:
    """(power, order, factor) of a size n that has a matrix, the arguments of the native library.

    A row of n numbers is 2^power blocks of `order` numbers. The library computes butterflies
    between the blocks and multiplies each block by `factor` from the right (None for order 1). The
    four innermost butterflies of a power of two would combine numbers inside one vector register,
    so they are replaced by a product with a factor of order 16.
    """
    power_and_order = factors(n)
    assert power_and_order is not None, f"{n} has no single matrix"
    power, order = power_and_order
    if order == 1:
        block_power = min(power, 4)
        kernel: NDArray[Any] = np.ones((1, 1))
        for _ in range(block_power):
            kernel = np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5, kernel)
        power, order = power - block_power, 1 << block_power
    else:
        kernel = signs(order) / order**0.5
    factor = kernel if transpose else kernel.T
    return power, order, None if order == 1 else np.ascontiguousarray(factor, dtype=np.float32)


@cache
def block_factorizations(
    n: int, kind: str
) -> tuple[tuple[int, int, NDArray[np.float32] | None, NDArray[np.float32] | None], ...]:
    """(power, order, factor, factor of the inverse) of each diagonal block that rotates n numbers.

    `kind`: "full", or "block64" for blocks of 64 and blocks for the remaining n % 64 numbers.
    """
    num_blocks = n // 64 if kind == "block64" else 0
    remainder = n - 64 * num_blocks
    sizes = [64] * num_blocks + list(blocks(remainder) if remainder > 0 else ())
    return tuple((*factorization(size, False), factorization(size, True)[2]) for size in sizes)


@cache
def blocks(n: int) -> tuple[int, ...]:
    """Sizes of the diagonal blocks that rotate n numbers, for any n >= 1.

    It is (n,) when n has a matrix. Otherwise all blocks have the size of the largest divisor of n
    that has a matrix, if that is at least 64. When there is no such divisor, each block is the
    largest size with a matrix that fits into the remaining numbers.
    """
    if factors(n):
        return (n,)
    for size in range(n // 2, SMALLEST_BLOCK - 1, -1):
        if n % size == 0 and factors(size):
            return (size,) * (n // size)
    sizes, remainder = [], n
    while remainder:
        size = next(size for size in range(remainder, 0, -1) if factors(size))
        sizes.append(size)
        remainder -= size
    return tuple(sizes)


def signs(order: int) -> NDArray[np.float64]:
    """The +-1 matrix (order, order) of Paley's constructions, float64."""
    if order == 1:
        return np.ones((1, 1))
    field = _field(order)
    assert field is not None, f"no Paley matrix of order {order}"
    q, is_second = field
    border_matrix = np.zeros((q + 1, q + 1))
    border_matrix[1:, 1:] = _characters(q)
    border_matrix[0, 1:] = 1
    border_matrix[1:, 0] = 1 if is_second else -1
    identity = np.eye(q + 1)
    if not is_second:
        return identity + border_matrix
    minus = np.array([[1.0, -1.0], [-1.0, -1.0]])
    return np.kron(border_matrix, minus[::-1] * np.array([[-1], [1]])) + np.kron(identity, minus)


def _field(order: int) -> tuple[int, bool] | None:
    """(q, whether it is construction II) of a Paley matrix, or None."""
    if order % 4 == 0 and (order - 1) % 4 == 3 and _root(order - 1):
        return order - 1, False
    if order % 4 == 0 and (order // 2 - 1) % 4 == 1 and _root(order // 2 - 1):
        return order // 2 - 1, True
    return None


def _root(q: int) -> int:
    """The prime p with q = p or q = p^2, else 0."""
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
