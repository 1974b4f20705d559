"""Reads and writes the description of a packed model, the entry `quantization_config` of its
config.json, without torch.

    {"quant_method": "featherweight", "version": 1,
     "layers": {module: {"format": "Trellis(bits=2)", "shape": [rows, columns],
                         "input_rotation": true, "output_rotation": "none" | "block64" | "full"}},
     "tied_head": module | null,
     "codes": {"Trellis(bits=2)": {"matrix": [...], "table": [...]}},
     "files": {"model.safetensors": sha256}}

`input_rotation` of an embedding says that its rows are stored rotated: look-ups undo the rotation,
and a tied head rotates its input. `codes` holds the constants of each format, so that a file stays
readable when the constants of the library change; the present reader requires them to be equal.
`files` is absent when another program has written the weights again. A format is stored as the
`repr` of its object. This text is parsed and never evaluated, because the file is untrusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ...base import spec
from ...base.errors import BadInput, FeatherweightError, UsageError
from ...models.config import PACKED
from . import BY_FORMAT
from .base import Layout, StoredTensors

VERSION = 1
MAX_WEIGHTS = 1 << 40
ROTATIONS = ("none", "block64", "full")
AnyLayout = TypeVar("AnyLayout", bound=Layout)


@dataclass(frozen=True)
class StoredMatrix(Generic[AnyLayout]):
    """How one matrix of `shape` (rows, columns) is stored: its format, and the rotations of its
    input and output sides.
    """

    format: AnyLayout
    shape: tuple[int, int]
    input_rotation: bool = False
    output_rotation: str = "none"

    @property
    def is_rotated(self) -> bool:
        """Whether the weights are stored rotated on at least one side."""
        return self.input_rotation or self.output_rotation != "none"

    def stored(self) -> StoredTensors:
        """The shape and dtype of every tensor that the file holds for this matrix, sign bits
        included. The names lack the prefix `<module>.`.
        """
        tensors = dict(self.format.stored(self.shape))
        if self.input_rotation:
            tensors["input_signs"] = ((-(-self.shape[1] // 8),), "U8")
        if self.output_rotation != "none":
            tensors["output_signs"] = ((-(-self.shape[0] // 8),), "U8")
        return tensors


@dataclass(frozen=True)
class Description(Generic[AnyLayout]):
    """The description of a packed model.

    layers: the compressed matrices by module name. tied_head: the module name of a head that shares
    the table of the embedding, else None. files: SHA-256 of each weights file by name.
    """

    layers: Mapping[str, StoredMatrix[AnyLayout]]
    tied_head: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for config.json."""
        layers = {
            name: {
                "format": repr(matrix.format),
                "shape": list(matrix.shape),
                "input_rotation": matrix.input_rotation,
                "output_rotation": matrix.output_rotation,
            }
            for name, matrix in self.layers.items()
        }
        entry: dict[str, Any] = {"quant_method": PACKED, "version": VERSION, "layers": layers}
        entry |= {
            "tied_head": self.tied_head,
            "codes": _constants(matrix.format for matrix in self.layers.values()),
        }
        return entry | ({"files": dict(self.files)} if self.files else {})


def read_description(
    entry: Any,
    origin: str = "config.json",
    formats: Mapping[str, type[AnyLayout]] = BY_FORMAT,  # type: ignore[assignment]
) -> Description[AnyLayout]:
    """The description in `entry`, a `quantization_config`.

    origin: the name of the file, for errors. formats: the class of each format by name; layouts by
    default. Raises BadInput, which names the file and the mistake, for a wrong entry.
    """
    if not isinstance(entry, Mapping) or entry.get("quant_method") != PACKED:
        raise BadInput(
            f"{origin} has no quantization_config of {PACKED}: this is not a model that it packed"
        )
    version = entry.get("version")
    if version != VERSION or type(version) is not int:
        is_newer = type(version) is int and version > VERSION
        raise BadInput(
            f"{origin} is written in version {version!r} of the packed format; "
            f"this library reads version {VERSION}"
            + ("; a newer one is needed" if is_newer else "")
        )
    entries = entry.get("layers")
    if not isinstance(entries, Mapping) or not entries:
        raise BadInput(f"{origin}: quantization_config lists no layers")
    layers = {
        str(name): _read_matrix(e, f"{origin}: layer {name}", formats)
        for name, e in entries.items()
    }
    _check_constants(entry.get("codes", {}), layers.values(), origin)
    head = entry.get("tied_head")
    if head is not None and not isinstance(head, str):
        raise BadInput(f"{origin}: tied_head is {head!r}, not a module name")
    files = entry.get("files", {})
    if not isinstance(files, Mapping) or not all(
        _is_file_sum(name, digest) for name, digest in files.items()
    ):
        raise BadInput(f"{origin}: files must map names of safetensors files to SHA-256 sums")
    return Description(layers, head, dict(files))


def _read_matrix(
    entry: Any, origin: str, formats: Mapping[str, type[AnyLayout]]
) -> StoredMatrix[AnyLayout]:
    if not isinstance(entry, Mapping):
        raise BadInput(f"{origin} is {entry!r}, not a description")
    text, shape, rotation = (
        entry.get("format"),
        entry.get("shape"),
        entry.get("output_rotation", "none"),
    )
    if not (
        isinstance(shape, (list, tuple))
        and len(shape) == 2
        and all(type(n) is int and n > 0 for n in shape)
    ):
        raise BadInput(f"{origin} has shape {shape!r}, not [rows, columns]")
    if shape[0] * shape[1] > MAX_WEIGHTS:
        raise BadInput(f"{origin} has shape {shape!r}: more weights than any matrix has")
    if rotation not in ROTATIONS or type(entry.get("input_rotation", False)) is not bool:
        raise BadInput(f"{origin} has an unknown rotation")
    try:
        format = spec.parse(str(text), formats)
        if not isinstance(format, Layout):
            raise UsageError(f"{text!r} is not a format")
        format.check((shape[0], shape[1]), origin)
    except FeatherweightError as error:
        raise BadInput(f"{origin} has a format that this library does not know: {error}") from error
    return StoredMatrix(format, (shape[0], shape[1]), entry.get("input_rotation", False), rotation)  # type: ignore[arg-type]


def _check_constants(entries: Any, matrices: Iterable[StoredMatrix[Any]], origin: str) -> None:
    """Raise BadInput unless the constants in the file are those of this library."""
    constants = _constants(matrix.format for matrix in matrices)
    if not isinstance(entries, Mapping):
        raise BadInput(f"{origin}: code tables are {entries!r}")
    if names := [
        name for name in {**constants, **entries} if entries.get(name) != constants.get(name)
    ]:
        raise BadInput(
            f"{origin}: the code tables of {', '.join(names)} differ from this library's"
        )


def _constants(layouts: Iterable[Layout]) -> dict[str, Any]:
    return {
        repr(layout): constants
        for layout in dict.fromkeys(layouts)
        if (constants := layout.constants())
    }


def _is_file_sum(name: object, digest: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(digest, str)
        and name.endswith(".safetensors")
        and not {"/", "\\"} & set(name)
    )
