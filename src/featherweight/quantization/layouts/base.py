"""The layout of a format: which tensors hold a matrix, of which shapes and dtypes, and what they
cost in bits.

A layout is a frozen dataclass whose fields are the format's parameters. It imports no torch, so
that the native engine can check and read a packed folder within a fraction of a second. Its text
(`repr`) is the format's entry in a checkpoint.
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
    """How the native library decodes a matrix: one of its kinds of kernel, with that kernel's
    parameters.

    `kind` "int": code (`bits` wide) -> scale * (code - zero), where `group` columns of the stored
    matrix share a scale and `zero` is the zero point unless a tensor of zero points is stored.
    `kind` "trellis": a state of `state_bits` bits is hashed by `hash_columns` to a byte, which
    indexes `table` (256 integers, at most 63 in magnitude).
    """

    kind: Literal["int", "trellis"]
    bits: int
    group: int = 0
    zero: int = 0
    state_bits: int = 0
    table: tuple[int, ...] = ()
    hash_columns: tuple[int, ...] = ()


class Layout(ABC):
    """Abstract base of all layouts; implementations are frozen dataclasses (`repr=False`).

    Shapes are (rows, columns).
    """

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The shape that is stored for a matrix of `shape`; the added rows and columns are zero and
        `ledger` counts them.
        """
        return shape

    @abstractmethod
    def check(self, shape: tuple[int, int], name: str) -> None:
        """Raise UsageError, naming the layer `name` and what to try, if a matrix of `shape` cannot
        be stored.
        """

    @abstractmethod
    def stored(self, shape: tuple[int, int]) -> StoredTensors:
        """Every tensor that is stored for a matrix of `shape`: what a loader must find, no more and
        no less.
        """

    @abstractmethod
    def ledger(self, shape: tuple[int, int]) -> Ledger:
        """Bits that a matrix of `shape` costs, by kind; the total equals 8 x the bytes of `stored`
        exactly.
        """

    def constants(self) -> dict[str, Any]:
        """The numbers behind this format's text that a decoder elsewhere needs (plain lists);
        checkpoints repeat them.
        """
        return {}

    def decoding(self, shape: tuple[int, int]) -> Decoding:
        """How the native library decodes a matrix of `shape`.

        Raises Unsupported when it has no kernel for this format.
        """
        raise Unsupported(f"the native engine has no kernel for {self!r}")

    def __repr__(self) -> str:
        return spec.text(self, name=type(self).__name__.removesuffix("Layout"))


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `n`."""
    return -(-n // multiple) * multiple
