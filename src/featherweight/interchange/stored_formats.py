"""Packed matrices read without torch: the same description as `interchange.description`, for the native engine.

A format is text in the library's notation and is parsed, never evaluated, into plain records that hold only what a
decoder needs. Shapes and sizes of every stored tensor are checked here, because kernels trust them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base import spec
from ..base.errors import BadInput, UsageError
from ..inference.described import Matrix, Unsupported
from ..models.mapped import Stored

VERSION = 1
ROTATIONS = ("none", "block64", "full")


@dataclass(frozen=True)
class Int:
    """Integer codes; see quantization/formats/int.py."""

    bits: int = 4
    group: int | None = None
    symmetric: bool = True


@dataclass(frozen=True)
class Ternary:
    """-1, 0, 1 in two bits; see quantization/formats/ternary.py."""

    group: int | None = None


@dataclass(frozen=True)
class Trellis:
    """Tiles of 16 x 16; see quantization/formats/trellis.py."""

    bits: int = 2
    L: int = 12
    code: str = "g"


# Format -> the 256 entries of its table and the columns of its matrix; one object for all matrices of a format.
Codes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
FORMATS: dict[str, type] = {"Int": Int, "Ternary": Ternary, "Trellis": Trellis}


def check(described: Mapping[str, Any], where: str) -> None:
    """BadInput unless the description is one that this library wrote."""
    if described.get("version") != VERSION:
        raise BadInput(f"{where}: the packed format is version {described.get('version')!r}, not {VERSION}")
    for key in ("layers", "codes"):
        if not isinstance(described.get(key, {}), Mapping):
            raise BadInput(f"{where}: {key} of its quantization_config are no object")


def code_tables(described: Mapping[str, Any], where: str) -> Codes:
    """The trellis codes that the description repeats; BadInput for tables that no code has."""
    found = {}
    for text, constants in described.get("codes", {}).items():
        try:
            table, columns = tuple(constants["table"]), tuple(constants["matrix"])
            right = len(table) == 256 and len(columns) <= 8 and any(table)
            right = right and all(type(n) is int and abs(n) <= 63 for n in table)
            right = right and all(type(n) is int and 0 <= n <= 255 for n in columns)
        except (TypeError, KeyError):
            right = False
        if not right:
            raise BadInput(f"{where}: the code tables of {text[:80]} are not what this library writes")
        found[text] = (table, columns)
    return found


def matrix(
    name: str,
    shape: tuple[int, int],
    entry: Any,
    codes: Codes,
    tensors: Mapping[str, Stored],
    where: str,
    **extra: Any,
) -> Matrix:
    """The matrix that `entry` of the description and the tensors `name`.* hold."""
    if not isinstance(entry, Mapping) or entry.get("shape") not in (list(shape), shape):
        raise BadInput(f"{where}: the description of {name} does not fit this model")
    text = str(entry.get("format"))
    try:
        format = spec.parse(text, FORMATS)
    except UsageError as error:
        raise Unsupported(f"{name} is stored as {text[:80]}, which the native engine does not read") from error
    if type(format) not in FORMATS.values():
        raise BadInput(f"{where}: {name} has no format but {text[:80]}")
    rotation = entry.get("output_rotation", "none")
    if rotation not in ROTATIONS:
        raise BadInput(f"{where}: {name} has an unknown rotation")
    read = _Tensors(name, tensors, where)
    if entry.get("input_rotation"):
        extra["input_signs"] = read("input_signs", "U8", (-(-shape[1] // 8),)).tobytes()
    if rotation != "none":
        extra |= {"output_signs": read("output_signs", "U8", (-(-shape[0] // 8),)).tobytes()}
        extra |= {"output_rotation": rotation}
    if isinstance(format, Trellis):
        return _trellis(format, text, shape, codes, read, extra)
    return _int(format, shape, read, extra)


def _int(format: Int | Ternary, shape: tuple[int, int], read: _Tensors, extra: dict[str, Any]) -> Matrix:
    ternary = isinstance(format, Ternary)
    bits, group = 2 if ternary else format.bits, format.group
    whole = type(bits) is int and 2 <= bits <= 8 and (group is None or (type(group) is int and group >= 1))
    if not whole or (group is not None and shape[1] % group):
        raise BadInput(f"{read.where}: {read.name} has an impossible format")
    rows, columns = -(-shape[0] // 16) * 16, -(-shape[1] // 32) * 32
    groups = 1 if group is None else -(-columns // group)  # those of padding alone too
    if not ternary and not format.symmetric:
        extra["zeros"] = read("zero", "U8", (rows // 16, groups, 16))
    return Matrix(
        "int",
        shape,
        read("codes", "U8", (rows * columns * bits // 8,)),
        bits=bits,
        group=columns if groups == 1 else group or columns,
        scales=read.scales((rows // 16, groups, 16)),
        zero=1 if ternary else 1 << (bits - 1),
        **extra,
    )


def _trellis(
    format: Trellis, text: str, shape: tuple[int, int], codes: Codes, read: _Tensors, extra: dict[str, Any]
) -> Matrix:
    if format.code != "g":
        raise Unsupported(f"{read.name} uses the trellis code {format.code!r}; the native engine decodes 'g' only")
    table, columns = codes.get(text, ((), ()))
    right = type(format.L) is int and type(format.bits) is int and format.bits in (1, 2, 3, 4)
    if not table or not right or len(columns) != format.L - 8:
        raise BadInput(f"{read.where} does not hold the code tables of {text[:80]}")
    rows, padded = -(-shape[0] // 64) * 64, -(-shape[1] // 64) * 64
    return Matrix(
        "trellis",
        shape,
        read("codes", "U8", (rows * padded * format.bits // 8,)),
        bits=format.bits,
        scales=read.scales((rows,)),
        state_bits=format.L,
        table=table,
        code_matrix=columns,
        **extra,
    )


class _Tensors:
    """The stored tensors of one module."""

    def __init__(self, name: str, tensors: Mapping[str, Stored], where: str) -> None:
        self.name, self._tensors, self.where = name, tensors, where

    def __call__(self, field: str, dtype: str, shape: tuple[int, ...]) -> Any:
        stored = self._tensors.get(f"{self.name}.{field}")
        if stored is None:
            raise BadInput(f"{self.where} has no tensor {self.name}.{field}")
        if stored.dtype != dtype or stored.shape != shape:
            raise BadInput(
                f"{self.where}: {self.name}.{field} is {stored.shape} {stored.dtype}, its format says {shape} {dtype}"
            )
        return stored.array()

    def scales(self, shape: tuple[int, ...]) -> Any:
        found = self("scale", "F16", shape)
        if not np.isfinite(found).all():
            raise BadInput(f"{self.where}: the scales of {self.name} are not all finite")
        return found
