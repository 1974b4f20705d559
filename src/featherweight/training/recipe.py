"""What must be equal in two runs so that one can continue the other, as plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from .state import stored_tensors


def of_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """The class of an optimizer and the settings of its groups."""
    groups = [
        {key: _json_ready(content) for key, content in group.items() if key != "params"}
        | {"num_parameters": len(group["params"])}
        for group in optimizer.param_groups
    ]
    return {"class": type(optimizer).__name__, "groups": groups}


def text_of(loss: Any) -> str:
    """The text of a loss: modules with their settings, functions by name."""
    if isinstance(loss, nn.Module):
        return repr(loss)
    return getattr(loss, "__qualname__", type(loss).__qualname__)


def of_module(module: nn.Module) -> str:
    """A hash of the names, shapes and dtypes of all tensors."""
    texts = [
        f"{name} {tuple(tensor.shape)} {tensor.dtype}"
        for name, tensor in stored_tensors(module).items()
    ]
    return f"{len(texts)} tensors {hashlib.sha256(' '.join(texts).encode()).hexdigest()[:16]}"


def _json_ready(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _json_ready(inner) for key, inner in content.items()}
    if isinstance(content, tuple | list):
        return [_json_ready(inner) for inner in content]
    is_scalar = content is None or isinstance(content, bool | int | float | str)
    return content if is_scalar else str(content)
