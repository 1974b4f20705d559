"""Students that are narrower than their teacher: some of its channels, inner channels and heads.

    student = keep_channels(teacher, KeptChannels(width=range(384), key_heads=[0, 2]))

A slice of a model is a start and not a result: every norm now divides by the size of fewer
channels. But its map to the teacher is known, so hidden states can be compared without a learned
projection. The student is an ordinary model of the teacher's class, whose configuration says its
widths; so every block has the same number of channels, though not the same ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import UsageError
from ..models import structure
from ..models.families.base import MATRICES
from .students import check_rising

# Which kept numbers the rows and the columns of a matrix follow.
ROWS = {
    "query": "heads",
    "key": "key_heads",
    "value": "key_heads",
    "out": "width",
    "gate": "inner",
    "up": "inner",
    "down": "width",
}
COLUMNS = {
    "query": "width",
    "key": "width",
    "value": "width",
    "out": "heads",
    "gate": "width",
    "up": "width",
    "down": "inner",
}
PARTS = {names.transformers: part for part, names in MATRICES.items()}

Numbers = Sequence[int]


@dataclass(frozen=True)
class KeptChannels:
    """The numbers of what is kept, rising; None keeps all.

    width: of the residual stream, equal in all blocks. inner: of the feed-forward network.
    key_heads: of keys and values, each with all the query heads that read it. The last two: one
    list for all blocks, or one list a block.
    """

    width: Numbers | None = None
    inner: Numbers | Sequence[Numbers] | None = None
    key_heads: Numbers | Sequence[Numbers] | None = None

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> KeptChannels:
        """The map as a file holds it. Raises UsageError for other keys."""
        if unknown := sorted(set(settings) - set(cls.__dataclass_fields__)):
            raise UsageError(
                f"a map of kept channels has {', '.join(cls.__dataclass_fields__)}, not "
                f"{', '.join(unknown)}"
            )
        return cls(**settings)


def keep_channels(model: nn.Module, kept: KeptChannels) -> nn.Module:
    """A model of the class of `model` with only the channels of `kept`; `model` is not changed.

    Raises UsageError for numbers that do not fit, and for a model with parameters whose rows and
    columns are not known (fused projections, experts).
    """
    config: Any = copy.deepcopy(model.config)
    names = [name for name, _ in structure.blocks(model)]
    head_width = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    choices = [_choices(kept, config, head_width, index, len(names)) for index in range(len(names))]
    numbers = {f"{name}.": choice for name, choice in zip(names, choices, strict=True)}
    tensors = {
        name: _slice(name, parameter.detach(), numbers, choices[0]["width"])
        for name, parameter in model.named_parameters()
    }
    groups = config.num_attention_heads // config.num_key_value_heads
    config.hidden_size = len(choices[0]["width"])
    config.intermediate_size = len(choices[0]["inner"])
    config.num_key_value_heads = len(choices[0]["key_heads"]) // head_width
    config.num_attention_heads = groups * config.num_key_value_heads
    config.head_dim = head_width
    build: Any = type(model)
    student: nn.Module = build(config)
    absent, unknown_names = student.load_state_dict(tensors, strict=False)
    if unknown_names or not set(absent) <= set(dict(student.named_buffers())) | _tied_names(
        student
    ):
        raise UsageError(
            f"{type(model).__name__} cannot be narrowed: the narrow model has other parameters "
            f"({', '.join([*unknown_names, *absent][:3])})"
        )
    return student.to(next(model.parameters()).dtype)


def _tied_names(model: nn.Module) -> set[str]:
    """Names of tables that share the parameter of another."""
    return set(model.state_dict()) - {name for name, _ in model.named_parameters()}


def _choices(
    kept: KeptChannels, config: Any, head_width: int, index: int, num_blocks: int
) -> dict[str, Tensor]:
    """The kept rows or columns of block `index`, by what they follow."""
    groups = config.num_attention_heads // config.num_key_value_heads
    key_heads = _of_block("key_heads", kept.key_heads, index, num_blocks)
    heads = _checked_numbers("key_heads", key_heads, config.num_key_value_heads)
    inner = _of_block("inner", kept.inner, index, num_blocks)
    return {
        "width": _checked_numbers("width", kept.width, config.hidden_size),
        "inner": _checked_numbers("inner", inner, config.intermediate_size),
        "key_heads": _spans(heads, head_width),
        "heads": _spans(heads, head_width * groups),
        "head": torch.arange(head_width),
    }


def _of_block(name: str, numbers: Any, index: int, num_blocks: int) -> Numbers | None:
    """The numbers of one block. Raises UsageError unless there is one equally long list a block."""
    is_nested = numbers is not None and len(numbers) and isinstance(numbers[0], Iterable)
    if not is_nested:
        return numbers  # type: ignore[no-any-return]
    if len(numbers) != num_blocks or len({len(part) for part in numbers}) != 1:
        raise UsageError(
            f"{name}: give one list for all, or {num_blocks} equally long lists, one a block"
        )
    return numbers[index]  # type: ignore[no-any-return]


def _checked_numbers(name: str, numbers: Numbers | None, count: int) -> Tensor:
    if numbers is None:
        return torch.arange(count)
    check_rising(name, numbers, count)
    return torch.tensor(list(numbers))


def _spans(heads: Tensor, width: int) -> Tensor:
    """The rows of some heads."""
    return (heads[:, None] * width + torch.arange(width)).flatten()


def _slice(
    name: str, tensor: Tensor, numbers: Mapping[str, Mapping[str, Tensor]], width: Tensor
) -> Tensor:
    """What the student keeps of a parameter."""
    block = next((prefix for prefix in numbers if name.startswith(prefix)), "")
    module, _, kind = name.removeprefix(block).rpartition(".")
    if not block:
        # Embedding and head have one column a channel, the last norm one gain.
        return tensor.index_select(tensor.ndim - 1, width.to(tensor.device))
    choice, part = numbers[block], PARTS.get(module)
    if part is not None:
        slice_of_rows = tensor.index_select(0, choice[ROWS[part]].to(tensor.device))
        return (
            slice_of_rows
            if kind == "bias"
            else slice_of_rows.index_select(1, choice[COLUMNS[part]])
        )
    if tensor.ndim == 1 and "norm" in module and module.rpartition(".")[0] == "":
        return tensor.index_select(0, width.to(tensor.device))
    if tensor.ndim == 1 and module in ("self_attn.q_norm", "self_attn.k_norm"):
        # One gain a channel of a head, shared by all heads, or one a channel of all heads.
        if len(tensor) == len(choice["head"]):
            return tensor
        return tensor.index_select(0, choice["heads" if "q_norm" in module else "key_heads"])
    raise UsageError(
        f"{name} {tuple(tensor.shape)}: it is not known which of its rows and columns belong to "
        "which channel, so this model cannot be narrowed; keep some of its blocks instead"
    )
