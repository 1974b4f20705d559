"""Which tensor of a checkpoint fills which parameter of the model, known from headers alone.

The names in a checkpoint need not be those of the model: old files lack the `model.` prefix or use
other names, hold buffers that are computed today, or store a head that the configuration calls
tied. transformers has rules for all of these and applies them while it loads. A streamed run reads
one tensor at a time and must find the same one, so the same rules are applied here, once, before
any work: renamings, the base model's prefix, the patterns of names that are ignored, and ties.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..base.errors import BadInput
from ..models.structure import check_no_experts
from ..models.tensors import TensorFolder
from .pretrained import list_names

if TYPE_CHECKING:
    from torch import Tensor, nn

# Buffers that old checkpoints hold and that transformers computes now. It ignores them where the
# model has a buffer whose name ends like this.
COMPUTED_BUFFERS = {
    "rotary_emb.inv_freq": r"rotary_emb\.inv_freq",
    "position_ids": r"(^|\.)position_ids$",
}


@dataclass(frozen=True)
class CheckpointMap:
    """How a checkpoint fills a model.

    `file_names` maps each parameter and stored buffer of the model to its name in the files; a
    parameter that shares the tensor of another one is left out. `ignored` are names in the files
    that fill nothing. `separate` are parameters that the configuration ties to another one although
    the files hold different numbers for the two: they are not tied.
    """

    file_names: Mapping[str, str]
    ignored: tuple[str, ...]
    separate: tuple[str, ...]


def map_checkpoint(tensors: TensorFolder, skeleton: nn.Module) -> CheckpointMap:
    """The map for the files `tensors` and the model `skeleton` (transformers, on meta).

    Raises BadInput, naming tensors, when a tensor of the files belongs to no parameter, when a
    parameter has no tensor or one of another shape, and for tensors that transformers would merge
    or split; UsageError, naming the module, when these are the experts of a mixture.
    """
    state: Mapping[str, Tensor] = skeleton.state_dict()
    file_names: dict[str, str] = {}
    unknown_names: list[str] = []
    parameter_names = _parameter_names(tensors, skeleton, state)
    for name in tensors.names():
        parameter = parameter_names[name]
        if parameter not in state:
            unknown_names.append(name)
        elif parameter in file_names:
            raise BadInput(
                f"{tensors.path}: {file_names[parameter]} and {name} are both the model's "
                f"{parameter}; keep one of them"
            )
        else:
            file_names[parameter] = name
    pattern = _ignored_names(skeleton)
    foreign_names = [name for name in unknown_names if not (pattern and pattern.search(name))]
    if foreign_names:
        raise BadInput(
            f"{tensors.path} holds tensors that a {type(skeleton).__name__} does not have: "
            f"{list_names(foreign_names)}"
        )
    copies, separate = _resolve_ties(tensors, skeleton, file_names)
    _check_complete(tensors, skeleton, state, file_names)
    return CheckpointMap(file_names, (*unknown_names, *copies), separate)


def _parameter_names(
    tensors: TensorFolder, skeleton: Any, state: Mapping[str, Tensor]
) -> dict[str, str]:
    """Name in the files -> the name that transformers gives it: its renamings, then the base
    model's prefix added or removed where that gives a name of the model.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    transforms = get_model_conversion_mapping(skeleton)
    renamings = [entry for entry in transforms if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in transforms if isinstance(entry, WeightConverter)]
    prefix, metas = skeleton.base_model_prefix, dict(state)
    names = {}
    # Some renamings remember the names before, so the order is that of transformers.
    for name in sorted(tensors.names(), key=dot_natural_key):
        parameter, converter = rename_source_key(name, renamings, converters, prefix, metas)
        if parameter not in state and name in state:
            parameter, converter = rename_source_key(name, [], [], prefix, metas)
        if converter is not None:
            check_no_experts(skeleton)  # the truer reason: their tensors are merged while loading
            raise BadInput(
                f"{tensors.path}: transformers converts {name} into {parameter} while it loads (it "
                "merges, splits or permutes tensors), which a streamed run cannot do. Load the "
                "model with transformers, write it with save_pretrained(..., "
                "save_original_format=False), and give that folder"
            )
        names[name] = str(parameter)
    return names


def _ignored_names(skeleton: Any) -> re.Pattern[str] | None:
    """The pattern of names that transformers ignores when the model does not have them."""
    patterns = set(skeleton._keys_to_ignore_on_load_unexpected or ())
    for suffix, pattern in COMPUTED_BUFFERS.items():
        if any(name.endswith(suffix) for name, _ in skeleton.named_buffers()):
            patterns.add(pattern)
    return _any_of(patterns)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    joined = "|".join(f"({pattern})" for pattern in sorted(patterns))
    return re.compile(joined) if joined else None


def _resolve_ties(
    tensors: TensorFolder, skeleton: Any, file_names: dict[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Make `file_names` hold one tensor for each tie.

    Returns (names in the files that only repeat another tensor, parameters that are not tied since
    their tensors differ).
    """
    copies, separate = [], []
    ties: Mapping[str, str] = getattr(skeleton, "all_tied_weights_keys", None) or {}
    for parameter, table in ties.items():
        if parameter not in file_names:
            continue
        if table not in file_names:
            # Only the tied one is stored: it is the table.
            file_names[table] = file_names.pop(parameter)
        elif _are_equal(tensors, file_names[parameter], file_names[table]):
            copies.append(file_names.pop(parameter))
        else:
            separate.append(parameter)
    return tuple(copies), tuple(separate)


def _are_equal(tensors: TensorFolder, name: str, other_name: str) -> bool:
    if tensors.shape(name) != tensors.shape(other_name):
        return False
    return torch.equal(tensors.read(name), tensors.read(other_name))


def _check_complete(
    tensors: TensorFolder,
    skeleton: Any,
    state: Mapping[str, Tensor],
    file_names: Mapping[str, str],
) -> None:
    """Raise BadInput unless every parameter has a tensor of its shape."""
    ties = getattr(skeleton, "all_tied_weights_keys", None) or {}
    optional = _any_of(skeleton._keys_to_ignore_on_load_missing or ())
    missing_names = [
        name
        for name in state
        if name not in file_names
        and ties.get(name) not in file_names
        and not (optional and optional.search(name))
    ]
    if missing_names:
        raise BadInput(
            f"{tensors.path} lacks tensors of a {type(skeleton).__name__}: "
            f"{list_names(missing_names)}"
        )
    for name, file_name in file_names.items():
        if tensors.shape(file_name) != tuple(state[name].shape):
            raise BadInput(
                f"{tensors.path}: tensor {file_name} is {list(tensors.shape(file_name))}, but the "
                f"configuration wants {list(state[name].shape)} for {name}"
            )
