"""The description of a packed model (`quantization/layouts/description.py`) made from a model, and
put into one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ...base.errors import BadInput, UsageError
from ...quantization import formats
from ...quantization.formats.base import Format
from ...quantization.layers import (
    CompressedEmbedding,
    CompressedLinear,
    TiedHead,
    compressed,
    share_inputs,
    tie_head,
)
from ...quantization.layouts.description import Description, StoredMatrix, read_description

FORMATS: dict[str, type[Format]] = {name: getattr(formats, name) for name in formats.__all__}


def read(entry: Any, where: str = "config.json") -> Description[Format]:
    """The description in a `quantization_config`, with PyTorch's formats.

    Raises BadInput that says what is wrong with it in the file `where`.
    """
    return read_description(entry, where, FORMATS)


def of_model(model: nn.Module) -> Description:
    """The description of a model in memory; UsageError when nothing in it is compressed."""
    layers = {}
    for name, module in compressed(model).items():
        if isinstance(module, CompressedLinear):
            layers[name] = StoredMatrix(
                module.format, module.shape, module.input_rotation, module.output_rotation
            )
        else:
            layers[name] = StoredMatrix(module.format, module.shape, module.input_rotation)
    if not layers:
        raise UsageError(
            "nothing in this model is compressed: quantize it first, or save it with save_pretrained"
        )
    heads = [name for name, module in model.named_modules() if isinstance(module, TiedHead)]
    return Description(layers, heads[0] if heads else None)


def install(model: nn.Module, description: Description) -> None:
    """Replace the named modules of `model` (usually on meta) by unfilled compressed ones; BadInput
    when one cannot be.

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
            new = CompressedLinear.of(
                module, layer.format, layer.input_rotation, layer.output_rotation
            )
        else:
            raise BadInput(
                f"config.json describes {name}, which is a {type(module).__name__} in this model"
            )
        if new.shape != layer.shape:
            raise BadInput(
                f"config.json says that {name} is {layer.shape}, but in this model it is {new.shape}"
            )
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
        raise BadInput(
            f"config.json says that {head} shares a table, but it is a {type(module).__name__}"
        )
    fitting = [t for t in tables.values() if t.shape == (module.out_features, module.in_features)]
    if len(fitting) != 1:
        raise BadInput(
            f"{head} shares a table, but {len(fitting)} compressed embeddings have its shape"
        )
    tie_head(model, head, fitting[0])


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise BadInput(f"config.json describes {name}, which this model does not have") from None
