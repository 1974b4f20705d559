"""Functions on the compressed layers of a model: list them, tie a head, share rotated inputs, keep
decoded matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ...base.errors import UsageError
from ..formats.base import Format
from ..layouts.description import Description, StoredMatrix
from ..transforms.activations import InputRotation
from .embedding import CompressedEmbedding, TiedHead
from .linear import CompressedLinear


def compressed_layers(model: nn.Module) -> dict[str, CompressedLinear | CompressedEmbedding]:
    """All compressed layers of `model` by full name, in module order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (CompressedLinear, CompressedEmbedding))
    }


def description_of(model: nn.Module) -> Description[Format] | None:
    """What config.json says of the compressed layers of `model`; None when there are none."""
    layers = {}
    for name, module in compressed_layers(model).items():
        output = module.output_rotation if isinstance(module, CompressedLinear) else "none"
        layers[name] = StoredMatrix(module.format, module.shape, module.input_rotation, output)
    heads = [name for name, module in model.named_modules() if isinstance(module, TiedHead)]
    return Description(layers, heads[0] if heads else None) if layers else None


def tie_head(model: nn.Module, name: str, embedding: CompressedEmbedding) -> None:
    """Replace the linear layer `name` by a head that uses the table of `embedding`.

    The pair is removed from transformers' lists of tied weights, because there is no parameter to
    tie any more. Raises UsageError when the shapes differ.
    """
    linear = model.get_submodule(name)
    fits = isinstance(linear, nn.Linear) and linear.weight.shape == torch.Size(embedding.shape)
    if not isinstance(linear, nn.Linear) or not fits:
        raise UsageError(f"{name} cannot share a table of {embedding.shape}: it is {linear}")
    model.set_submodule(name, TiedHead(embedding, linear.bias).train(linear.training))
    for prefix, module in model.named_modules():
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
            keys = getattr(module, attribute, None)
            if isinstance(keys, dict):
                start = f"{prefix}." if prefix else ""
                remaining_keys = {
                    k: v for k, v in keys.items() if f"{start}{k}" != f"{name}.weight"
                }
                setattr(module, attribute, remaining_keys)


def share_inputs(model: nn.Module) -> None:
    """Give all layers of `model` one `InputRotation`, so that an input is rotated once."""
    memo = InputRotation()
    for layer in compressed_layers(model).values():
        if isinstance(layer, CompressedLinear):
            layer.memo = memo


@contextmanager
def keep_decoded(model: nn.Module) -> Iterator[None]:
    """Inside this context each matrix is decoded at its first use and then kept, so the model has
    the speed and the memory of a dense one.
    """
    layers = list(compressed_layers(model).values())
    caches = [layer._dense_cache for layer in layers]
    try:
        for layer in layers:
            layer._dense_cache = {} if layer._dense_cache is None else layer._dense_cache
        yield
    finally:
        for layer, cache in zip(layers, caches, strict=True):
            layer._dense_cache = cache
