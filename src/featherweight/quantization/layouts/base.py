"""The layout of a format: the tensors that store a matrix, their shapes and dtypes, and their size
in bits.

A layout is a frozen dataclass whose fields are the format's parameters. It imports no torch, so
that the native engine can check and read a packed folder within a fraction of a second. A
checkpoint stores its `repr` as the name of the format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from ...base import spec
from ...base.errors import Unsupported
from ...base.ledger import Ledger

# Name of a stored tensor -> (shape, dtype as safetensors names it, such as "U8" or "F16").
StoredTensors = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class Decoding:
    """How the native library decodes a matrix: the kind of its kernel and the kernel's parameters.

    kind "int": the value is scale * (code - zero) with codes of `bits` bits. `group` columns of the
    stored matrix share a scale; `zero` is the zero point unless a tensor of zero points is stored.
    kind "trellis": a state of `state_bits` bits is hashed by the columns `hash_columns` of a binary
    matrix to a byte, which indexes `table` (256 integers, at most 63 in magnitude).
    """

    kind: Literal["int", "trellis"]
    bits: int
    group: int = 0
    zero: int = 0
    state_bits: int = 0
    table: tuple[int, ...] = ()
    hash_columns: tuple[int, ...] = ()


class Layout(ABC):
    """Abstract base of all layouts.

    Implementations are frozen dataclasses (with `repr=False`) whose fields are the parameters of
    the format. All shapes are (rows, columns) = (outputs, inputs).
    """

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The shape in which a matrix of `shape` is stored. The added rows and columns are zero,
        and `ledger` counts them as padding.
        """
        return shape

    @abstractmethod
    def check(self, shape: tuple[int, int], name: str) -> None:
        """Raise UsageError, which names the layer `name` and what to try, when a matrix of `shape`
        cannot be stored.
        """

    @abstractmethod
    def stored(self, shape: tuple[int, int]) -> StoredTensors:
        """The name, shape and dtype of every tensor that stores a matrix of `shape`. A loader must
        find exactly these tensors.
        """

    @abstractmethod
    def ledger(self, shape: tuple[int, int]) -> Ledger:
        """The stored bits of a matrix of `shape` by kind (codes, scales, padding, ...). Their sum
        is exactly 8 times the bytes of the tensors in `stored`.
        """

    def constants(self) -> dict[str, Any]:
        """The constants, such as code tables, that a decoder needs and that the `repr` of the
        format does not contain. A checkpoint stores them as plain lists.
        """
        return {}

    def decoding(self, shape: tuple[int, int]) -> Decoding:
        """How the native library decodes a matrix of `shape`.

        Raises Unsupported when the library has no kernel for this format.
        """
        raise Unsupported(f"the native engine has no kernel for {self!r}")

    def __repr__(self) -> str:
        return spec.text(self, name=type(self).__name__.removesuffix("Layout"))


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `n`."""
    return -(-n // multiple) * multiple
