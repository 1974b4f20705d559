"""The structures of native/featherweight.h in ctypes, filled from a `weights.ModelWeights`.

A structure holds bare addresses. A `StructArena` builds structures and owns the arrays behind the
addresses, so it must live as long as the library may read them.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ...ops import paley
from ...ops.gf2 import hash_states
from . import weights

_POINTER, _INT, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
KINDS = {"float32": 1, "float16": 2, "bfloat16": 3, "int": 4, "trellis": 5}
ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "relu_squared": 2}
MATRICES = ("query", "key", "value", "out", "gate", "up", "down")
NORMS = (
    "attention_norm",
    "ffn_norm",
    "after_attention_norm",
    "after_ffn_norm",
    "query_norm",
    "key_norm",
)


class BlockStruct(ctypes.Structure):
    """One diagonal block of a rotation: fw_rotation_block."""

    _fields_ = (
        ("power", _INT),
        ("order", _INT),
        ("kernel", _POINTER),
        ("kernel_transposed", _POINTER),
    )


class RotationStruct(ctypes.Structure):
    """Signs and blocks of a rotation: fw_rotation."""

    _fields_ = (("length", _LONG), ("signs", _POINTER), ("num_blocks", _LONG), ("blocks", _POINTER))


class MatrixStruct(ctypes.Structure):
    """A matrix as it is stored: fw_matrix."""

    _fields_ = (
        *(("size", _LONG), ("kind", _INT), ("bits", _INT), ("rows", _LONG), ("columns", _LONG)),
        *(("codes", _POINTER), ("codes_bytes", _LONG), ("scales", _POINTER), ("num_scales", _LONG)),
        *(
            ("zero_points", _POINTER),
            ("group", _LONG),
            ("zero_point", _INT),
            ("state_bits", _INT),
            ("state_values", _POINTER),
        ),
        *(("table", _POINTER), ("code_matrix", _POINTER), ("table_scale", _FLOAT)),
        *(("input", _POINTER), ("output", _POINTER), ("bias", _POINTER)),
    )


class LayerStruct(ctypes.Structure):
    """The matrices of a block and its norms: fw_layer."""

    _fields_ = (
        ("size", _LONG),
        *((name, MatrixStruct) for name in MATRICES),
        *((name, _POINTER) for name in NORMS),
        ("rope_frequencies", _POINTER),
        ("window", _LONG),
    )


class ModelStruct(ctypes.Structure):
    """A whole model: fw_description."""

    _fields_ = (
        *(("size", _LONG), ("hidden", _LONG), ("vocabulary", _LONG), ("num_heads", _LONG)),
        *(
            ("num_kv_heads", _LONG),
            ("head_width", _LONG),
            ("num_layers", _LONG),
            ("rotary_width", _LONG),
            ("layers", _POINTER),
        ),
        *(
            ("embedding", MatrixStruct),
            ("head", MatrixStruct),
            ("final_norm", _POINTER),
            ("epsilon", _FLOAT),
        ),
        *(("attention_scale", _FLOAT), ("attention_softcap", _FLOAT), ("final_softcap", _FLOAT)),
        *(
            ("embedding_scale", _FLOAT),
            ("rope_scale", _FLOAT),
            ("residual_scale", _FLOAT),
            ("logit_divisor", _FLOAT),
            ("activation", _INT),
            ("int8_activations", _INT),
            ("fp16_cache", _INT),
            ("joint_head_norms", _INT),
        ),
        ("max_tokens", _INT),
    )


class RowStruct(ctypes.Structure):
    """One token to run: fw_row."""

    _fields_ = (
        *(("token", _INT), ("reserved", _INT), ("position", _LONG), ("capacity", _LONG)),
        *(("keys", _POINTER), ("values", _POINTER), ("logits", _POINTER)),
    )


class StructArena:
    """Builds structures, and owns every array that they point to."""

    def __init__(self) -> None:
        self._arrays: list[Any] = []
        self._rotations: dict[tuple[bytes, int, str], RotationStruct] = {}
        self._trellis_codes: dict[Any, tuple[Any, ...]] = {}

    def model_struct(
        self, model: weights.ModelWeights, int8_activations: bool, max_tokens: int
    ) -> ModelStruct:
        """fw_description of `model`.

        int8_activations: round activations to int8, and keys and values to half precision.
        max_tokens: the most tokens of one call.
        """
        layers = self._retain((LayerStruct * len(model.layers))(*map(self._layer, model.layers)))
        return ModelStruct(
            ctypes.sizeof(ModelStruct),
            *(
                model.hidden,
                model.vocab_size,
                model.num_heads,
                model.num_key_heads,
                model.head_width,
            ),
            *(len(model.layers), model.rotary_width),
            ctypes.addressof(layers),
            self.matrix_struct(model.embedding),
            self.matrix_struct(model.head),
            self._floats(model.final_norm),
            *(model.epsilon, model.attention_scale, model.attention_softcap, model.final_softcap),
            *(model.embedding_scale, model.rope_scale, model.residual_scale, model.logit_divisor),
            ACTIVATIONS[model.activation],
            *(int(int8_activations), int(int8_activations), int(model.joint_head_norms)),
            max_tokens,
        )

    def matrix_struct(self, matrix: weights.MatrixWeights | None) -> MatrixStruct:
        """fw_matrix of `matrix`; an absent one for None."""
        if matrix is None:
            return MatrixStruct(ctypes.sizeof(MatrixStruct))
        key = (matrix.table, matrix.code_matrix, matrix.state_bits)
        if key not in self._trellis_codes:
            self._trellis_codes[key] = _trellis_code(matrix)
        state_values, table_scale, table, code_matrix = self._trellis_codes[key]
        rows, columns = matrix.shape
        return MatrixStruct(
            ctypes.sizeof(MatrixStruct),
            *(KINDS[matrix.kind], matrix.bits, rows, columns),
            *(self._address(matrix.codes), matrix.codes.nbytes),
            *(
                self._address(matrix.scales),
                0 if matrix.scales is None else matrix.scales.size,
                self._address(matrix.zeros),
            ),
            *(matrix.group, matrix.zero, matrix.state_bits, self._floats(state_values)),
            *(self._address(table), self._address(code_matrix)),
            table_scale,
            self._rotation(matrix.input_signs, columns, "full"),
            self._rotation(matrix.output_signs, rows, matrix.output_rotation),
            self._floats(matrix.bias),
        )

    def _layer(self, layer: weights.LayerWeights) -> LayerStruct:
        return LayerStruct(
            ctypes.sizeof(LayerStruct),
            *(self.matrix_struct(getattr(layer, name)) for name in MATRICES),
            *(self._floats(getattr(layer, name)) for name in NORMS),
            self._floats(layer.frequencies),
            layer.window,
        )

    def _rotation(self, signs: bytes | None, n: int, kind: str) -> int | None:
        """The address of a rotation's structure. Equal rotations have the same address, because the
        library computes a rotation once for all matrices with the same address.
        """
        if signs is None:
            return None
        if (signs, n, kind) not in self._rotations:
            blocks = [
                BlockStruct(power, order, self._floats(factor), self._floats(inverse_factor))
                for power, order, factor, inverse_factor in paley.block_factorizations(n, kind)
            ]
            array = self._retain((BlockStruct * len(blocks))(*blocks))
            bits = self._address(np.frombuffer(signs, np.uint8))
            self._rotations[signs, n, kind] = RotationStruct(
                n, bits, len(blocks), ctypes.addressof(array)
            )
        return ctypes.addressof(self._rotations[signs, n, kind])

    def _floats(self, array: Any) -> int | None:
        """The address of a float32 copy, or of the array itself when it is float32; the same array
        has the same address.
        """
        return None if array is None else self._address(np.ascontiguousarray(array, np.float32))

    def _address(self, array: Any) -> int | None:
        if array is None:
            return None
        assert array.flags.c_contiguous
        return int(self._retain(array).ctypes.data)

    def _retain(self, array: Any) -> Any:
        self._arrays.append(array)
        return array


def _trellis_code(matrix: weights.MatrixWeights) -> tuple[Any, float, Any, Any]:
    """(state_values, table_scale, table, code_matrix) of a trellis code: the value of every state,
    with unit variance; the factor from an integer of the table to its value; the table; and the
    matrix over GF(2).
    """
    if matrix.kind != "trellis":
        return None, 0.0, None, None
    table = np.array(matrix.table, np.float64)
    root_mean_square = np.sqrt((table**2).mean())
    hashes = hash_states(np.arange(1 << matrix.state_bits), matrix.code_matrix)
    state_values = (table / root_mean_square)[hashes].astype(np.float32)
    return (
        state_values,
        float(1.0 / root_mean_square),
        np.array(matrix.table, np.int8),
        np.array(matrix.code_matrix, np.uint8),
    )
