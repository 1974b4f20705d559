"""The structures of native/featherweight.h in ctypes, filled from a `weights.ModelWeights`.

A structure holds bare addresses, so a `Keeper` holds the arrays behind them until the library is
done.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ...ops import paley
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

    _fields_ = (("power", _INT), ("order", _INT), ("kernel", _POINTER), ("transposed", _POINTER))


class RotationStruct(ctypes.Structure):
    """Signs and blocks: fw_rotation."""

    _fields_ = (("length", _LONG), ("signs", _POINTER), ("num_blocks", _LONG), ("blocks", _POINTER))


class MatrixStruct(ctypes.Structure):
    """A matrix as stored: fw_matrix."""

    _fields_ = (
        *(("size", _LONG), ("kind", _INT), ("bits", _INT), ("rows", _LONG), ("columns", _LONG)),
        *(("codes", _POINTER), ("codes_bytes", _LONG), ("scales", _POINTER), ("num_scales", _LONG)),
        *(
            ("zeros", _POINTER),
            ("group", _LONG),
            ("zero", _INT),
            ("state_bits", _INT),
            ("values", _POINTER),
        ),
        *(("table", _POINTER), ("code_matrix", _POINTER), ("unit", _FLOAT)),
        *(("input", _POINTER), ("output", _POINTER), ("bias", _POINTER)),
    )


class LayerStruct(ctypes.Structure):
    """Seven matrices and their norms: fw_layer."""

    _fields_ = (
        ("size", _LONG),
        *((name, MatrixStruct) for name in MATRICES),
        *((name, _POINTER) for name in NORMS),
        ("frequencies", _POINTER),
        ("window", _LONG),
    )


class ModelStruct(ctypes.Structure):
    """A whole model: fw_description."""

    _fields_ = (
        *(("size", _LONG), ("hidden", _LONG), ("vocabulary", _LONG), ("num_heads", _LONG)),
        *(
            ("num_key_heads", _LONG),
            ("head_width", _LONG),
            ("num_layers", _LONG),
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
            ("activation", _INT),
            ("int8_activations", _INT),
            ("half_cache", _INT),
        ),
        ("max_rows", _INT),
    )


class RowStruct(ctypes.Structure):
    """One token to run: fw_row."""

    _fields_ = (
        *(("token", _INT), ("reserved", _INT), ("position", _LONG), ("capacity", _LONG)),
        *(("keys", _POINTER), ("values", _POINTER), ("logits", _POINTER)),
    )


class Keeper:
    """Builds the structures and keeps alive what they point at."""

    def __init__(self) -> None:
        self._alive: list[Any] = []
        self._rotations: dict[tuple[bytes, int, str], RotationStruct] = {}
        self._codes: dict[Any, tuple[Any, ...]] = {}

    def description(
        self, model: weights.ModelWeights, int8_activations: bool, max_rows: int
    ) -> ModelStruct:
        """fw_description of `model`."""
        layers = self._keep((LayerStruct * len(model.layers))(*map(self._layer, model.layers)))
        return ModelStruct(
            ctypes.sizeof(ModelStruct),
            *(
                model.hidden,
                model.vocab_size,
                model.num_heads,
                model.num_key_heads,
                model.head_width,
            ),
            len(model.layers),
            ctypes.addressof(layers),
            self.matrix(model.embedding),
            MatrixStruct(ctypes.sizeof(MatrixStruct))
            if model.head is None
            else self.matrix(model.head),
            self._floats(model.final_norm),
            *(model.epsilon, model.attention_scale, model.attention_softcap, model.final_softcap),
            model.embedding_scale,
            ACTIVATIONS[model.activation],
            *(int(int8_activations), int(int8_activations), max_rows),
        )

    def matrix(self, m: weights.MatrixWeights) -> MatrixStruct:
        """fw_matrix of `m`."""
        key = (m.table, m.code_matrix, m.state_bits)
        if key not in self._codes:
            self._codes[key] = _code(m)
        values, unit, table, code_matrix = self._codes[key]
        rows, columns = m.shape
        return MatrixStruct(
            ctypes.sizeof(MatrixStruct),
            *(KINDS[m.kind], m.bits, rows, columns, self._address(m.codes), m.codes.nbytes),
            *(
                self._address(m.scales),
                0 if m.scales is None else m.scales.size,
                self._address(m.zeros),
            ),
            *(m.group, m.zero, m.state_bits, self._floats(values)),
            *(self._address(table), self._address(code_matrix)),
            unit,
            self._rotation(m.input_signs, columns, "full"),
            self._rotation(m.output_signs, rows, m.output_rotation),
            self._floats(m.bias),
        )

    def _layer(self, layer: weights.LayerWeights) -> LayerStruct:
        return LayerStruct(
            ctypes.sizeof(LayerStruct),
            *(self.matrix(getattr(layer, name)) for name in MATRICES),
            *(self._floats(getattr(layer, name)) for name in NORMS),
            self._floats(layer.frequencies),
            layer.window,
        )

    def _rotation(self, signs: bytes | None, n: int, kind: str) -> int | None:
        """The address of one structure for each distinct rotation: the library shares work between
        equal addresses.
        """
        if signs is None:
            return None
        if (signs, n, kind) not in self._rotations:
            blocks = [
                BlockStruct(power, order, self._floats(kernel), self._floats(transposed))
                for power, order, kernel, transposed in paley.block_plans(n, kind)
            ]
            array = self._keep((BlockStruct * len(blocks))(*blocks))
            bits = self._address(np.frombuffer(signs, np.uint8))
            self._rotations[signs, n, kind] = RotationStruct(
                n, bits, len(blocks), ctypes.addressof(array)
            )
        return ctypes.addressof(self._rotations[signs, n, kind])

    def _floats(self, array: Any) -> int | None:
        """The address of a float32 copy, or of the array itself; the same array has the same
        address.
        """
        return None if array is None else self._address(np.ascontiguousarray(array, np.float32))

    def _address(self, array: Any) -> int | None:
        if array is None:
            return None
        assert array.flags.c_contiguous
        return int(self._keep(array).ctypes.data)

    def _keep(self, thing: Any) -> Any:
        self._alive.append(thing)
        return thing


def _code(m: weights.MatrixWeights) -> tuple[Any, float, Any, Any]:
    """A GF(2)-linear trellis code: the value of every state, what one step of its table is worth,
    table and matrix.
    """
    if m.kind != "trellis":
        return None, 0.0, None, None
    table = np.array(m.table, np.float64)
    root = np.sqrt((table**2).mean())
    states = np.arange(1 << m.state_bits)
    h = states & 255
    for i, column in enumerate(m.code_matrix):
        h = h ^ (((states >> (8 + i)) & 1) * column)
    values = (table / root)[h].astype(np.float32)
    return values, float(1.0 / root), np.array(m.table, np.int8), np.array(m.code_matrix, np.uint8)
