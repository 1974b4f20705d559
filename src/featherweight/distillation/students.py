"""Students made of their teacher: some of its blocks, in order, with everything around them.

Blocks that are spread evenly keep more of the model than the first or the last ones, because each
block changes the residual a little and its neighbours do similar work (Sajjad et al. 2020).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..base.errors import UsageError
from ..models import structure


def spread(num_blocks: int, step: int) -> tuple[int, ...]:
    """Every `step`-th of `num_blocks` blocks, always with the first and the last.

    As many as ceil(num_blocks / step), spread evenly. Raises UsageError unless two blocks or more
    remain and one goes.
    """
    count = -(-num_blocks // step) if step >= 1 else 0
    if not 2 <= count < num_blocks:
        raise UsageError(
            f"every block of {step} out of {num_blocks} leaves {count}; a student has at least two "
            "blocks and fewer than its teacher"
        )
    return tuple(round(i * (num_blocks - 1) / (count - 1)) for i in range(count))


def check_rising(name: str, numbers: Sequence[int], count: int) -> None:
    """Raise UsageError unless `numbers` are some of 0 to count - 1, rising."""
    order = list(numbers)
    if not order or order != sorted(set(order)) or order[0] < 0 or order[-1] >= count:
        raise UsageError(f"{name}: give rising numbers below {count}, not {order[:8]}")


def keep_blocks(model: nn.Module, indices: Sequence[int]) -> nn.Module:
    """A copy of `model` with only the blocks `indices`, whose configuration says so.

    The blocks are numbered anew, so that each has its own place in the cache of keys and values.
    `model` is not changed. Raises UsageError when the indices are not rising or beyond the blocks.
    """
    names = [name for name, _ in structure.blocks(model)]
    check_rising("blocks", indices, len(names))
    place, _, _ = names[0].rpartition(".")
    parent_name, _, attribute = place.rpartition(".")
    parent = model.get_submodule(parent_name)
    blocks: Any = getattr(parent, attribute)
    block_list = nn.ModuleList([blocks[index] for index in indices])
    setattr(parent, attribute, block_list)
    try:
        # Copied while the others are away, so that they need no memory a second time.
        student = copy.deepcopy(model)
    finally:
        setattr(parent, attribute, blocks)
    for index, block in enumerate(student.get_submodule(place).children()):
        for module in block.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = index  # type: ignore[assignment]
    _shorten_config(student.config, len(names), indices)
    return student


def _shorten_config(config: Any, num_blocks: int, indices: Sequence[int]) -> None:
    """Let `config` describe the blocks that are left: their number, and the lists with one entry a
    block.
    """
    config.num_hidden_layers = len(indices)
    for key, entries in list(vars(config).items()):
        if isinstance(entries, list) and len(entries) == num_blocks and key.endswith("_types"):
            setattr(config, key, [entries[index] for index in indices])
