"""Stored matrices of a packed folder in the form that the native library reads: the tensors of a
layout, and how to decode them.

The kernels trust the shape and dtype of every tensor, so they are checked here. Scales must be
finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.errors import BadInput, Unsupported
from ...models.mapped import MappedTensor
from ...quantization.layouts import Layout
from ...quantization.layouts.description import StoredMatrix
from .weights import MatrixWeights

# Tensor that a layout stores -> the field of `MatrixWeights` that holds it.
FIELDS = {"codes": "codes", "scale": "scales", "zero": "zeros"}


def read_matrix(
    name: str,
    matrix: StoredMatrix[Layout],
    tensors: Mapping[str, MappedTensor],
    folder: str,
    bias: NDArray[np.float32] | None = None,
) -> MatrixWeights:
    """The weights of a stored matrix.

    Args: name, of the module, whose tensors are `name`.* in `tensors`; matrix, its format and
    shape; folder, for error messages; bias (rows,). Raises BadInput for a tensor that is missing or
    has another shape or dtype than the layout stores, or scales that are not finite; Unsupported
    for a format that the native library has no kernel for.
    """
    try:
        decoding = matrix.format.decoding(matrix.shape)
    except Unsupported as error:
        raise Unsupported(f"{name}: {error}") from error
    arrays: dict[str, Any] = {
        key: _read_tensor(f"{name}.{key}", shape, dtype, tensors, folder)
        for key, (shape, dtype) in matrix.stored().items()
    }
    signs: dict[str, Any] = {
        side: arrays.pop(side).tobytes()
        for side in ("input_signs", "output_signs")
        if side in arrays
    }
    if not np.isfinite(arrays["scale"]).all():
        raise BadInput(f"{folder}: {name}.scale holds numbers that are not finite")
    return MatrixWeights(
        decoding.kind,
        matrix.shape,
        bits=decoding.bits,
        group=decoding.group,
        zero=decoding.zero,
        state_bits=decoding.state_bits,
        table=decoding.table,
        code_matrix=decoding.hash_columns,
        output_rotation=matrix.output_rotation,
        bias=bias,
        **{FIELDS[key]: array for key, array in arrays.items()},
        **signs,
    )


def _read_tensor(
    name: str, shape: tuple[int, ...], dtype: str, tensors: Mapping[str, MappedTensor], folder: str
) -> NDArray[Any]:
    tensor = tensors.get(name)
    if tensor is None:
        raise BadInput(f"{folder} has no tensor {name}")
    if tensor.shape != shape or tensor.dtype != dtype:
        raise BadInput(f"{folder}: {name} is {tensor.dtype} {tensor.shape}, not {dtype} {shape}")
    return tensor.array()
