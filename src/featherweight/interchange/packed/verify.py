"""Checks that a packed folder is complete: its files before loading, and the model after loading.

A packed model either loads exactly as it was written, or BadInput names the file and the tensor.
The checks find altered or truncated files (SHA-256), missing or unknown tensors, other shapes or
dtypes, and scales that are not finite. Nothing is repaired and nothing is initialised at random.
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
from ...quantization.layers import TiedHead, compressed_layers
from .description import Description


def check_sums(files: Sequence[Path], description: Description) -> None:
    """Raise BadInput when the SHA-256 of a weights file is not the one in config.json. Folders
    without checksums are not checked.
    """
    if not description.files:
        return
    paths = {file.name: file for file in files}
    if missing_names := sorted(set(description.files) - set(paths)):
        raise BadInput(f"{files[0].parent / missing_names[0]} is missing")
    if foreign_names := sorted(set(paths) - set(description.files)):
        raise BadInput(
            f"{paths[foreign_names[0]]} does not belong to this model: config.json does not list it"
        )
    for name, listed_sum in description.files.items():
        if (file_sum := sha256(paths[name])) != listed_sum:
            raise BadInput(
                f"{paths[name]} was altered or is incomplete: its SHA-256 is {file_sum[:16]}..., "
                f"config.json says {listed_sum[:16]}...; fetch it again"
            )


def check_stored(tensors: TensorFolder, description: Description) -> None:
    """Raise BadInput unless every described matrix has exactly its stored tensors, of the right
    shapes and dtypes.
    """
    stored_names = set()
    for module, matrix in description.layers.items():
        for name, (shape, dtype) in matrix.stored().items():
            _check(tensors, f"{module}.{name}", shape, DTYPES[dtype])
            stored_names.add(f"{module}.{name}")
    for name in tensors.names():
        module, _, part = name.rpartition(".")
        is_known = name in stored_names or part in ("weight", "bias")
        if module in description.layers and not is_known:
            raise BadInput(
                f"{tensors.path}: tensor {name} is not stored by "
                f"{description.layers[module].format!r}"
            )


def check_against(tensors: TensorFolder, model: nn.Module) -> None:
    """Raise BadInput when the files lack a tensor of `model`, or hold a tensor that it does not
    have or that has another shape there.

    `model` has compressed modules already (on meta). When some names are missing and others are
    unknown, transformers may rename tensors while loading. Then only the names that both the files
    and the model have are compared.
    """
    state = model.state_dict()
    file_names = set(tensors.names())
    for name in sorted(file_names & set(state)):
        file_dtype, dtype = tensors.dtype(name), state[name].dtype
        if file_dtype.is_floating_point and dtype.is_floating_point:
            dtype = file_dtype  # transformers converts between floating-point dtypes
        _check(tensors, name, tuple(state[name].shape), dtype)
    tied_names = set(getattr(model, "all_tied_weights_keys", None) or {})
    ignored_patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or []
    missing_names = sorted(set(state) - file_names - tied_names)
    unknown_names = sorted(
        name
        for name in file_names - set(state)
        if not any(re.search(pattern, name) for pattern in ignored_patterns)
    )
    if missing_names and not unknown_names:
        name = missing_names[0]
        raise BadInput(f"{tensors.path}: tensor {name} is missing{_count_others(missing_names)}")
    if unknown_names and not missing_names and not set(unknown_names) <= tied_names:
        raise BadInput(
            f"{tensors.path}: tensor {unknown_names[0]} is not one of this model's"
            f"{_count_others(unknown_names)}"
        )


def check_filled(model: nn.Module, description: Description) -> None:
    """Raise BadInput unless every described module is compressed, every tensor was loaded (none is
    still on meta), all numbers are finite and all codes are in the range of their format.
    """
    layers = compressed_layers(model)
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
            f"{description.tied_head} was described as tied, "
            "but the loaded model holds its own matrix"
        )
    if missing_names := _initialised_names(model):
        raise BadInput(
            f"tensor {missing_names[0]} is missing from the files{_count_others(missing_names)}"
        )
    for name, layer in layers.items():
        if not layer.weight.is_meta and not any(
            t.is_meta for t in layer.qweight().tensors.values()
        ):
            layer.format.check_codes(layer.qweight(), name)
    devices = set(map(str, (getattr(model, "hf_device_map", None) or {}).values()))
    # A device map may leave layers on the CPU or the disk; their tensors are on meta, too.
    may_stay_on_meta = bool(devices & {"cpu", "disk"})
    for name, tensor in model.state_dict().items():
        if not tensor.is_meta:
            require_finite(tensor, name)
        elif not may_stay_on_meta:
            raise BadInput(f"tensor {name} was not loaded")


def _initialised_names(model: nn.Module) -> list[str]:
    """Names of tensors that transformers initialised because no file holds them. transformers marks
    the tensors that it loaded, so these are the tensors without a mark.
    """
    state_names = set(model.state_dict())
    tensors = {
        name: tensor
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if name in state_names
    }
    unmarked_names = [
        name for name, tensor in tensors.items() if not getattr(tensor, "_is_hf_initialized", False)
    ]
    # When no tensor is marked, this version of transformers sets no marks. Then only
    # `check_against` finds missing tensors.
    return unmarked_names if len(unmarked_names) < len(tensors) else []


def _check(tensors: TensorFolder, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if name not in tensors:
        raise BadInput(f"{tensors.path}: tensor {name} is missing")
    if tensors.shape(name) != shape or tensors.dtype(name) != dtype:
        raise BadInput(
            f"{tensors.path}: tensor {name} is {tensors.dtype(name)} {list(tensors.shape(name))}, "
            f"not {dtype} {list(shape)}"
        )


def _count_others(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
