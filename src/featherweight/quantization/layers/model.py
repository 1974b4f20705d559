"""Compressed layers inside a model: finding them, tying a head, sharing rotations, decoding all at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ...base.errors import UsageError
from ..transforms.activations import InputRotation
from .embedding import CompressedEmbedding, TiedHead
from .linear import CompressedLinear


def compressed(model: nn.Module) -> dict[str, CompressedLinear | CompressedEmbedding]:
    """Full name -> layer, of every compressed layer of `model`, in module order."""
    return {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, (CompressedLinear, CompressedEmbedding))
    }


def tie_head(model: nn.Module, name: str, embedding: CompressedEmbedding) -> None:
    """Let the linear `name` use the table of `embedding`; transformers is told that it has nothing
    to tie there.
    """
    linear = model.get_submodule(name)
    if (
        not isinstance(linear, nn.Linear)
        or (linear.out_features, linear.in_features) != embedding.shape
    ):
        raise UsageError(f"{name} cannot share a table of {embedding.shape}: it is {linear}")
    model.set_submodule(name, TiedHead(embedding, linear.bias).train(linear.training))
    for prefix, part in model.named_modules():
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
            keys = getattr(part, attribute, None)
            if isinstance(keys, dict):
                start = f"{prefix}." if prefix else ""
                setattr(
                    part,
                    attribute,
                    {k: v for k, v in keys.items() if f"{start}{k}" != f"{name}.weight"},
                )


def share_inputs(model: nn.Module) -> None:
    """Give all rotated layers of `model` one `InputRotation`, so that layers which read one tensor
    rotate it once.
    """
    memo = InputRotation()
    for layer in compressed(model).values():
        if isinstance(layer, CompressedLinear):
            layer.memo = memo


@contextmanager
def decoded(model: nn.Module) -> Iterator[None]:
    """Keep each decoded matrix from its first use to the end of the block: the memory of the dense
    model, its speed.
    """
    layers = list(compressed(model).values())
    before = [layer._kept for layer in layers]
    try:
        for layer in layers:
            layer._kept = {} if layer._kept is None else layer._kept
        yield
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer._kept = kept
