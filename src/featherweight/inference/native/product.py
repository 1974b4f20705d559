"""One stored matrix times some vectors on the native library: what a model's layers do, by itself.

For tests and for the doctor; a model calls the kernels without leaving the library. Imports no
torch.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.errors import UsageError
from ...ops import library
from . import abi
from .weights import MatrixWeights


def multiply(
    matrix: MatrixWeights, x: NDArray[np.float32], *, planes: int = 1, isa: str | None = None
) -> NDArray[np.float32]:
    """[vectors, rows] = the matrix times x [vectors, columns].

    `planes` is the bytes that an activation is rounded to: 1 (what a model takes behind a
    rotation), 2 (elsewhere), or
    0 for float32 throughout. Formats without a kernel for whole numbers take float32 whatever it says.
    """
    native = library.library()
    if native is None:
        raise UsageError("the native library is not installed; `fw doctor` says why")
    if x.ndim != 2 or x.shape[1] != matrix.shape[1]:
        raise UsageError(f"vectors of shape {x.shape} do not fit a matrix of shape {matrix.shape}")
    x = np.ascontiguousarray(x, np.float32)
    out: NDArray[Any] = np.empty((len(x), matrix.shape[0]), np.float32)
    keeper = abi.Keeper()  # holds what the structure points at until the call returns
    described = keeper.matrix(matrix)
    status = native.fw_product(
        ctypes.byref(described), x.ctypes.data, len(x), planes, library.chosen(isa), out.ctypes.data
    )
    library.check(status, f"multiplying {matrix.shape[0]} x {matrix.shape[1]} by {len(x)} vectors")
    return out
