"""What config.json says about a packed model: the `quantization_config` entry, both ways.

    {"quant_method": "featherweight", "version": 1,
     "layers": {module: {"format": "Trellis(bits=2)", "shape": [rows, columns],
                         "input_rotation": true, "output_rotation": "none" | "block64" | "full"}},
     "tied_head": module | null,
     "codes": {"Trellis(bits=2)": {"matrix": [...], "table": [...]}},
     "files": {"model.safetensors": sha256}}

An embedding's `input_rotation` says that its rows are stored rotated: look-ups turn them back, a tied head turns its input.
`codes` repeats the constants behind a format's name, so that a file stays readable when the library's change: today
they must be equal. `files` is absent after another program has written the weights anew.
Formats are text in the library's own notation, parsed and never evaluated; everything read here is untrusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..base import spec
from ..base.errors import BadInput, FeatherweightError, UsageError
from ..quantization import formats
from ..quantization.formats.base import Format
from ..quantization.layers import (
    CompressedEmbedding,
    CompressedLinear,
    TiedHead,
    compressed,
    share_inputs,
    tie_head,
)
from ..quantization.transforms.hadamard import OUTPUTS

METHOD = "featherweight"
VERSION = 1
MAX_WEIGHTS = 1 << 40


@dataclass(frozen=True)
class Layer:
    """How one matrix of `shape` (rows, columns) is stored."""

    format: Format
    shape: tuple[int, int]
    input_rotation: bool = False
    output_rotation: str = "none"

    def stored(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Name -> (shape, dtype) of every tensor that `<module>.` holds in the file, signs included."""
        tensors = dict(self.format.stored(self.shape))
        if self.input_rotation:
            tensors["input_signs"] = ((-(-self.shape[1] // 8),), torch.uint8)
        if self.output_rotation != "none":
            tensors["output_signs"] = ((-(-self.shape[0] // 8),), torch.uint8)
        return tensors


@dataclass(frozen=True)
class Description:
    """All compressed matrices of a model by module name, and the head that shares the embedding's table."""

    layers: Mapping[str, Layer]
    tied_head: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for config.json."""
        layers = {
            name: {
                "format": repr(layer.format),
                "shape": list(layer.shape),
                "input_rotation": layer.input_rotation,
                "output_rotation": layer.output_rotation,
            }
            for name, layer in self.layers.items()
        }
        plain: dict[str, Any] = {"quant_method": METHOD, "version": VERSION, "layers": layers}
        plain |= {"tied_head": self.tied_head, "codes": _codes(layer.format for layer in self.layers.values())}
        return plain | ({"files": dict(self.files)} if self.files else {})


def _codes(used: Iterable[Format]) -> dict[str, Any]:
    return {repr(format): constants for format in used if (constants := format.constants())}


def read(plain: Any, where: str = "config.json") -> Description:
    """The description in a `quantization_config`; BadInput saying what is wrong with it in file `where`."""
    if not isinstance(plain, Mapping) or plain.get("quant_method") != METHOD:
        raise BadInput(f"{where} has no quantization_config of {METHOD}: this is not a model that it packed")
    version = plain.get("version")
    if version != VERSION or type(version) is not int:
        newer = type(version) is int and version > VERSION
        raise BadInput(
            f"{where} is written in version {version!r} of the packed format; this library reads version {VERSION}"
            + ("; a newer one is needed" if newer else "")
        )
    entries = plain.get("layers")
    if not isinstance(entries, Mapping) or not entries:
        raise BadInput(f"{where}: quantization_config lists no layers")
    layers = {str(name): _layer(entry, f"{where}: layer {name}") for name, entry in entries.items()}
    expected, found = _codes(layer.format for layer in layers.values()), plain.get("codes", {})
    if not isinstance(found, Mapping):
        raise BadInput(f"{where}: code tables are {found!r}")
    if wrong := [format for format in {**expected, **found} if found.get(format) != expected.get(format)]:
        raise BadInput(f"{where}: the code tables of {', '.join(wrong)} differ from this library's")
    head = plain.get("tied_head")
    if head is not None and not isinstance(head, str):
        raise BadInput(f"{where}: tied_head is {head!r}, not a module name")
    files = plain.get("files", {})
    plainly_named = isinstance(files, Mapping) and all(
        isinstance(name, str) and isinstance(sum_, str) and name.endswith(".safetensors") and "/" not in name
        for name, sum_ in files.items()
    )
    if not plainly_named or any("\\" in name for name in files):
        raise BadInput(f"{where}: files must map names of safetensors files to SHA-256 sums")
    return Description(layers, head, dict(files))


def _layer(entry: Any, where: str) -> Layer:
    if not isinstance(entry, Mapping):
        raise BadInput(f"{where} is {entry!r}, not a description")
    text, shape, rotation = entry.get("format"), entry.get("shape"), entry.get("output_rotation", "none")
    if not (isinstance(shape, (list, tuple)) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)):
        raise BadInput(f"{where} has shape {shape!r}, not [rows, columns]")
    if shape[0] * shape[1] > MAX_WEIGHTS:
        raise BadInput(f"{where} has shape {shape!r}: more weights than any matrix has")
    if rotation not in OUTPUTS or type(entry.get("input_rotation", False)) is not bool:
        raise BadInput(f"{where} has an unknown rotation")
    try:
        format = spec.parse(str(text), {name: getattr(formats, name) for name in formats.__all__})
        if not isinstance(format, Format):
            raise UsageError(f"{text!r} is not a format")
        format.check((shape[0], shape[1]), where)
    except FeatherweightError as error:
        raise BadInput(f"{where} has a format that this library does not know: {error}") from error
    return Layer(format, (shape[0], shape[1]), entry.get("input_rotation", False), rotation)


def of_model(model: nn.Module) -> Description:
    """The description of a model in memory; UsageError when nothing in it is compressed."""
    layers = {}
    for name, module in compressed(model).items():
        if isinstance(module, CompressedLinear):
            layers[name] = Layer(module.format, module.shape, module.input_rotation, module.output_rotation)
        else:
            layers[name] = Layer(module.format, module.shape, module.input_rotation)
    if not layers:
        raise UsageError("nothing in this model is compressed: quantize it first, or save it with save_pretrained")
    heads = [name for name, module in model.named_modules() if isinstance(module, TiedHead)]
    return Description(layers, heads[0] if heads else None)


def install(model: nn.Module, description: Description) -> None:
    """Replace the named modules of `model` (usually on meta) by unfilled compressed ones; BadInput when one cannot be.

    Tying that transformers would do is switched off for a head that becomes a `TiedHead`.
    """
    tables = {}
    for name, layer in description.layers.items():
        module = _module(model, name)
        new: CompressedLinear | CompressedEmbedding
        if isinstance(module, nn.Embedding):
            if layer.output_rotation != "none":
                raise BadInput(f"config.json rotates the outputs of {name}, which is an embedding")
            new = tables[name] = CompressedEmbedding.of(module, layer.format, layer.input_rotation)
        elif isinstance(module, nn.Linear):
            new = CompressedLinear.of(module, layer.format, layer.input_rotation, layer.output_rotation)
        else:
            raise BadInput(f"config.json describes {name}, which is a {type(module).__name__} in this model")
        if new.shape != layer.shape:
            raise BadInput(f"config.json says that {name} is {layer.shape}, but in this model it is {new.shape}")
        model.set_submodule(name, new)
    if description.tied_head is not None:
        _tie(model, description.tied_head, tables)
    # What transformers would still tie to a table that is no longer there.
    for shared, table in (getattr(model, "all_tied_weights_keys", None) or {}).items():
        if table.removesuffix(".weight") in tables:
            raise BadInput(
                f"{shared} shares {table} in this model, but config.json does not name its module as tied_head"
            )
    share_inputs(model)


def _tie(model: nn.Module, head: str, tables: Mapping[str, CompressedEmbedding]) -> None:
    """Put a `TiedHead` at `head`, for the one of `tables` that has its shape."""
    module = _module(model, head)
    if not isinstance(module, nn.Linear):
        raise BadInput(f"config.json says that {head} shares a table, but it is a {type(module).__name__}")
    fitting = [t for t in tables.values() if t.shape == (module.out_features, module.in_features)]
    if len(fitting) != 1:
        raise BadInput(f"{head} shares a table, but {len(fitting)} compressed embeddings have its shape")
    tie_head(model, head, fitting[0])


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise BadInput(f"config.json describes {name}, which this model does not have") from None
