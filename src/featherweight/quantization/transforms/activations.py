"""Rotations of activations: U x and its inverse, differentiable, shared by layers with one input.

Rotations run in float32 (in float64 for float64 inputs), outside autocast. Nothing of the input is
saved for the backward pass: an orthogonal map's gradient is its inverse applied to the gradient.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from .hadamard import rotate_rows


class _Rotate(torch.autograd.Function):
    """x -> H(s * x), or its inverse (the transpose) s * H^T(x).

    Nothing is saved for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, signs: Tensor, rotation: str, inverse: bool) -> Tensor:
        ctx.signs, ctx.rotation, ctx.inverse = signs, rotation, inverse
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        with torch.autocast(x.device.type, enabled=False):
            signs = signs.to(dtype)
            if inverse:
                return (signs * rotate_rows(x.to(dtype), rotation, transpose=True)).to(x.dtype)
            return rotate_rows(signs * x.to(dtype), rotation).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return _Rotate.apply(grad, ctx.signs, ctx.rotation, not ctx.inverse), None, None, None


def rotate(
    x: Float[Tensor, "*batch n"],
    signs: Float[Tensor, " n"],
    rotation: str = "full",
    inverse: bool = False,
) -> Float[Tensor, "*batch n"]:
    """U x for each vector of `x`, with U = H diag(signs), or U^T x when `inverse`.

    `rotation`: "full" (H of the full width) or "block64" (blocks of 64, and a smaller one for the
    remaining columns). The result has the dtype of `x` and is differentiable in it.
    """
    return _Rotate.apply(x, signs, rotation, inverse)


@dataclass(slots=True, weakref_slot=True)
class _Entry:
    key: tuple[bytes, bool]
    version: int
    source: weakref.ref[Tensor] | None = None
    result: Tensor | None = None


class InputRotation:
    """A cache of the last rotated input of each thread: layers that read one tensor rotate it once.

    A result is reused for the same tensor object, if it was not modified since (`_version`), the
    signs are equal, and gradients are needed or not needed as before. It is dropped when the input
    is freed. Tensors of inference mode do not count their modifications, so they are rotated every
    time. Writes through `.data` or numpy are not noticed.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> InputRotation:
        return InputRotation()

    def __reduce__(self) -> tuple[type[InputRotation], tuple[()]]:
        return InputRotation, ()

    def __call__(self, x: Tensor, key: bytes, signs: Tensor) -> Tensor:
        """The rotation of `x` by `signs`; `key` stands for the signs in comparisons."""
        if torch.compiler.is_compiling() or x.is_inference() or torch.is_inference_mode_enabled():
            return rotate(x, signs)
        cache_key = (key, x.requires_grad and torch.is_grad_enabled())
        entry = getattr(self._local, "entry", None)
        if entry is not None and entry.result is not None:
            if entry.source() is x and entry.version == x._version and entry.key == cache_key:
                return cast(Tensor, entry.result)
        entry = _Entry(cache_key, x._version)
        entry.source = weakref.ref(x, _clear_when_freed(weakref.ref(entry)))
        entry.result = result = rotate(x, signs)
        self._local.entry = entry
        return result


def _clear_when_freed(reference: weakref.ref[_Entry]) -> Callable[[object], None]:
    def clear(_: object) -> None:
        entry = reference()
        if entry is not None:
            entry.result = None

    return clear
