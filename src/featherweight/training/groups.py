"""Parameter groups for an optimizer: which parameters decay.

Weight decay shrinks matrices, whose scale the next norm forgives. On a norm's gain, a bias or the
scale of a quantizer it changes the function, and a scale that shrinks takes all its weights along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ..base.errors import UsageError

# A matrix with such a word in its last name (the scales of column groups) does not decay either.
SCALE_WORDS = ("bias", "scale", "zero", "gain", "norm", "alpha", "beta", "gamma")

Group = dict[str, Any]


def parameter_groups(
    *modules: nn.Module, weight_decay: float, no_decay: Sequence[str] = ()
) -> list[Group]:
    """Two groups of the trainable parameters of all `modules` (a model, a loss with parameters):
    those that decay, and the others.

    Vectors and scalars (norms, biases) never decay, nor do parameters whose last name says scale,
    zero, gain, norm, alpha, beta or gamma, nor those whose full name matches one of `no_decay` (as
    in the shell). Raises UsageError when a pattern matches nothing.
    """
    parameters = trainable(*modules)
    for pattern in no_decay:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise UsageError(f"no_decay: no trainable parameter matches {pattern!r}")
    decays = {
        name: parameter.ndim >= 2
        and not any(word in name.rpartition(".")[2].lower() for word in SCALE_WORDS)
        and not any(fnmatchcase(name, pattern) for pattern in no_decay)
        for name, parameter in parameters.items()
    }
    sides = ((True, weight_decay), (False, 0.0))
    groups = [
        {
            "params": [parameters[name] for name in parameters if decays[name] == side],
            "weight_decay": rate,
        }
        for side, rate in sides
    ]
    return [group for group in groups if group["params"]]


def split(
    *modules: nn.Module, is_first: Callable[[str, nn.Parameter], bool]
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters that `is_first(name, parameter)` accepts, and the others."""
    parameters = trainable(*modules)
    first = [parameter for name, parameter in parameters.items() if is_first(name, parameter)]
    ids = set(map(id, first))
    return first, [parameter for parameter in parameters.values() if id(parameter) not in ids]


def trainable(*modules: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name; a tied one is there once. Raises UsageError when there is
    none.
    """
    parameters: dict[str, nn.Parameter] = {}
    for index, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameters[name if not index else f"{index}.{name}"] = parameter
    if not parameters:
        raise UsageError("nothing to train: no parameter requires a gradient")
    return parameters
