"""One stored matrix times some vectors on the native library: what the layers of a model compute,
for a single matrix.

For tests and for the doctor; a model calls the kernels inside the library. Imports no torch.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.errors import UsageError
from ...ops import library
from .abi import StructArena
from .weights import MatrixWeights


def multiply(
    matrix: MatrixWeights, x: NDArray[np.float32], *, planes: int = 1, isa: str | None = None
) -> NDArray[np.float32]:
    """The product of a matrix with vectors, float32 (vectors, rows).

    Args: x (vectors, columns); planes, how many int8 numbers an activation is rounded to: 1 (what a
    model uses behind a rotation), 2 (elsewhere), or 0 to compute in float32; isa, one of scalar,
    avx2, avx512 (None: the best). A format without a kernel for int8 activations is computed in
    float32 for every `planes`. Raises UsageError without the native library, or for shapes and
    planes that do not fit.
    """
    native = library.library()
    if native is None:
        raise UsageError("the native library is not installed; `fw doctor` says why")
    if x.ndim != 2 or x.shape[1] != matrix.shape[1]:
        raise UsageError(f"vectors of shape {x.shape} do not fit a matrix of shape {matrix.shape}")
    x = np.ascontiguousarray(x, np.float32)
    out: NDArray[Any] = np.empty((len(x), matrix.shape[0]), np.float32)
    arena = StructArena()  # must live until the call returns
    struct = arena.matrix_struct(matrix)
    status = native.fw_product(
        ctypes.byref(struct),
        x.ctypes.data,
        len(x),
        planes,
        library.encode_isa(isa),
        out.ctypes.data,
    )
    library.check(status, f"multiplying {matrix.shape[0]} x {matrix.shape[1]} by {len(x)} vectors")
    return out
