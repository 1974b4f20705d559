"""Whether a packed folder is whole: what must be in its files, and what must be in the model
afterwards.

A packed model either loads exactly as it was written or is refused, naming the file and the tensor:
altered or truncated files (SHA-256), missing or unknown tensors, other shapes or dtypes, scales
that are not finite. Nothing is repaired and nothing is initialised at random.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ...base.errors import BadInput
from ...base.files import sha256
from ...models.tensors import DTYPES, TensorFolder, require_finite
from ...quantization.layers import TiedHead, compressed
from .description import Description


def check_sums(files: Sequence[Path], description: Description) -> None:
    """Raise BadInput when a weights file is not, byte for byte, the one that was written; without
    sums, do nothing.
    """
    if not description.files:
        return
    found = {file.name: file for file in files}
    if missing := sorted(set(description.files) - set(found)):
        raise BadInput(f"{files[0].parent / missing[0]} is missing")
    if extra := sorted(set(found) - set(description.files)):
        raise BadInput(
            f"{found[extra[0]]} does not belong to this model: config.json does not list it"
        )
    for name, expected in description.files.items():
        if (actual := sha256(found[name])) != expected:
            raise BadInput(
                f"{found[name]} was altered or is incomplete: its SHA-256 is {actual[:16]}..., "
                f"config.json says {expected[:16]}...; fetch it again"
            )


def check_stored(tensors: TensorFolder, description: Description) -> None:
    """Raise BadInput unless every described matrix has exactly its stored tensors, of the right
    shapes and dtypes.
    """
    for module, layer in description.layers.items():
        for name, (shape, dtype) in layer.stored().items():
            _check(tensors, f"{module}.{name}", shape, DTYPES[dtype])
    expected = {
        f"{module}.{name}"
        for module, layer in description.layers.items()
        for name in layer.stored()
    }
    for name in tensors.names():
        module, _, last = name.rpartition(".")
        if module in description.layers and name not in expected and last not in ("weight", "bias"):
            raise BadInput(
                f"{tensors.path}: tensor {name} is not stored by {description.layers[module].format!r}"
            )


def check_against(tensors: TensorFolder, model: nn.Module) -> None:
    """Raise BadInput when the files lack a tensor of `model`, hold one it does not know, or one of
    another shape.

    `model` holds compressed modules already (on meta). When some names are missing and others
    unknown, the two may be renamings that transformers undoes while loading; then only what both
    know is compared.
    """
    state = model.state_dict()
    found = set(tensors.names())
    for name in sorted(found & set(state)):
        dtype = tensors.dtype(name)
        wanted = (
            dtype
            if dtype.is_floating_point and state[name].dtype.is_floating_point
            else state[name].dtype
        )
        _check(tensors, name, tuple(state[name].shape), wanted)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or []
    missing = sorted(set(state) - found - set(tied))
    unknown = sorted(
        name for name in found - set(state) if not any(re.search(p, name) for p in ignored)
    )
    if missing and not unknown:
        raise BadInput(f"{tensors.path}: tensor {missing[0]} is missing" + _more(missing))
    if unknown and not missing and not set(unknown) <= set(tied):
        raise BadInput(
            f"{tensors.path}: tensor {unknown[0]} is not one of this model's" + _more(unknown)
        )


def check_filled(model: nn.Module, description: Description) -> None:
    """Raise BadInput unless every described module is compressed, loaded (nothing left on meta),
    finite and of known codes.
    """
    layers = compressed(model)
    for name in description.layers:
        if name not in layers:
            kind = type(model.get_submodule(name)).__name__
            raise BadInput(
                f"{name} was described as compressed, but the loaded model holds a {kind}"
            )
    if description.tied_head is not None and not isinstance(
        model.get_submodule(description.tied_head), TiedHead
    ):
        raise BadInput(
            f"{description.tied_head} was described as tied, but the loaded model holds its own matrix"
        )
    if invented := _not_loaded(model):
        raise BadInput(f"tensor {invented[0]} is missing from the files" + _more(invented))
    for name, layer in layers.items():
        if not layer.weight.is_meta and not any(
            t.is_meta for t in layer.qweight().tensors.values()
        ):
            layer.format.check_codes(layer.qweight(), name)
    placed = set(map(str, (getattr(model, "hf_device_map", None) or {}).values()))
    for name, tensor in model.state_dict().items():
        if not tensor.is_meta:
            require_finite(tensor, name)
        elif not placed & {
            "cpu",
            "disk",
        }:  # tensors that were asked to stay there look like meta ones
            raise BadInput(f"tensor {name} was not loaded")


def _not_loaded(model: nn.Module) -> list[str]:
    """Names of tensors that transformers initialised because no file held them: it marks those that
    it loaded.
    """
    saved = set(model.state_dict())
    tensors = {
        name: t for name, t in (*model.named_parameters(), *model.named_buffers()) if name in saved
    }
    missing = [
        name for name, tensor in tensors.items() if not getattr(tensor, "_is_hf_initialized", False)
    ]
    # A version without such marks leaves this check to the names compared before loading.
    return missing if len(missing) < len(tensors) else []


def _check(tensors: TensorFolder, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if name not in tensors:
        raise BadInput(f"{tensors.path}: tensor {name} is missing")
    if tensors.shape(name) != shape or tensors.dtype(name) != dtype:
        raise BadInput(
            f"{tensors.path}: tensor {name} is {tensors.dtype(name)} {list(tensors.shape(name))}, "
            f"not {dtype} {list(shape)}"
        )


def _more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
