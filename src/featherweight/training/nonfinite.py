"""Where numbers stop being finite: the first module, or the parameter, that a stopped run names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from . import ranks
from .loss import Loss


def name_cause(model: nn.Module, forward: Callable[[Any], Loss], batches: Iterable[Any]) -> str:
    """What is not finite, in words: a parameter, a batch, the output of a module, or a gradient.

    forward: computes the loss of a batch; it is called again for each of `batches`, until a module
    of `model` gives an output that is not finite. Gradients must still be there.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not _is_finite(tensor):
            return f"{name} itself holds numbers that are not finite"
    causes: list[str] = []
    with _watch(model, causes), torch.no_grad():
        for batch in batches:
            if not _is_finite(batch):
                return "the batch holds numbers that are not finite"
            loss = forward(batch)
            if causes:
                return f"the output of {causes[0]} is not finite"
            if not _is_finite(loss.total):
                return "the loss is not finite, although the outputs of all modules are"
    # A backward pass begins at the end of the model.
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not _is_finite(parameter.grad):
            return f"the gradient of {name} is not finite"
    return "a sum over the batch is not finite, although its terms are"


@contextmanager
def _watch(model: nn.Module, causes: list[str]) -> Iterator[None]:
    def hook(name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: Any, output: Any) -> None:
            if not _is_finite(output):
                causes.append(name or type(module).__name__)

        return look

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_finite(content: Any) -> bool:
    if isinstance(content, Tensor):
        numbers = ranks.local(content)
        return not numbers.is_floating_point() or bool(numbers.isfinite().all())
    if isinstance(content, Mapping):
        return all(map(_is_finite, content.values()))
    if isinstance(content, tuple | list):
        return all(map(_is_finite, content))
    return True
