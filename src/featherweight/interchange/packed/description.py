"""Reads the description of a packed model from config.json, makes it from a model in memory, and
puts the described layers into a model.

The class `Description` itself is in `quantization/layouts/description.py`, which needs no torch.
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
    description_of,
    share_inputs,
    tie_head,
)
from ...quantization.layouts.description import Description, read_description

FORMATS: dict[str, type[Format]] = {name: getattr(formats, name) for name in formats.__all__}


def read(entry: Any, file_name: str = "config.json") -> Description[Format]:
    """The description in `entry`, a `quantization_config`, with the formats of PyTorch.

    Raises BadInput, which names the file `file_name` and the mistake, for a wrong entry.
    """
    return read_description(entry, file_name, FORMATS)


def of_model(model: nn.Module) -> Description:
    """The description of a model in memory. Raises UsageError when no layer is compressed."""
    description = description_of(model)
    if description is None:
        raise UsageError(
            "nothing in this model is compressed: quantize it first, or save it with "
            "save_pretrained"
        )
    return description


def install(model: nn.Module, description: Description) -> None:
    """Replace the described modules of `model` (usually on meta) by empty compressed ones.

    A head that becomes a `TiedHead` is removed from the weights that transformers ties. Raises
    BadInput when a module does not exist or has another class or shape than the description says.
    """
    tables = {}
    for name, matrix in description.layers.items():
        module = _module(model, name)
        layer: CompressedLinear | CompressedEmbedding
        if isinstance(module, nn.Embedding):
            if matrix.output_rotation != "none":
                raise BadInput(f"config.json rotates the outputs of {name}, which is an embedding")
            layer = CompressedEmbedding.of(module, matrix.format, matrix.input_rotation)
            tables[name] = layer
        elif isinstance(module, nn.Linear):
            layer = CompressedLinear.of(
                module, matrix.format, matrix.input_rotation, matrix.output_rotation
            )
        else:
            raise BadInput(
                f"config.json describes {name}, which is a {type(module).__name__} in this model"
            )
        if layer.shape != matrix.shape:
            raise BadInput(
                f"config.json says that {name} is {matrix.shape}, "
                f"but in this model it is {layer.shape}"
            )
        model.set_submodule(name, layer)
    if description.tied_head is not None:
        _tie(model, description.tied_head, tables)
    # transformers would tie the remaining names to a table that no longer exists.
    for tied_name, table in (getattr(model, "all_tied_weights_keys", None) or {}).items():
        if table.removesuffix(".weight") in tables:
            raise BadInput(
                f"{tied_name} shares {table} in this model, "
                "but config.json does not name its module as tied_head"
            )
    share_inputs(model)


def _tie(model: nn.Module, head: str, tables: Mapping[str, CompressedEmbedding]) -> None:
    """Put a `TiedHead` at `head` that shares the one table in `tables` with the head's shape."""
    module = _module(model, head)
    if not isinstance(module, nn.Linear):
        raise BadInput(
            f"config.json says that {head} shares a table, but it is a {type(module).__name__}"
        )
    shape = (module.out_features, module.in_features)
    candidates = [table for table in tables.values() if table.shape == shape]
    if len(candidates) != 1:
        raise BadInput(
            f"{head} shares a table, but {len(candidates)} compressed embeddings have its shape"
        )
    tie_head(model, head, candidates[0])


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise BadInput(f"config.json describes {name}, which this model does not have") from None
