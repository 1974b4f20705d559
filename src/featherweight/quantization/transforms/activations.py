"""Rotations of activations, U x and its inverse. They are differentiable, and layers with the same
input share one.

Rotations are computed in float32 (in float64 for float64 inputs) with autocast off. The backward
pass needs no saved input, because the gradient of an orthogonal map is its inverse, applied to the
gradient of the output.
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
    """x -> H(s * x), or its inverse (the transpose) s * H^T(x). No tensor is saved for the backward
    pass except the signs s.
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
    """A cache of the last rotated input of each thread, so that layers with the same input rotate
    it once.

    A result is used again when the input is the same tensor object, it was not modified since
    (`_version`), the signs are equal, and the need for gradients is the same. It is dropped when
    the input is freed. Tensors of inference mode have no `_version`, so they are rotated every
    time. Changes through `.data` or numpy are not noticed.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> InputRotation:
        return InputRotation()

    def __reduce__(self) -> tuple[type[InputRotation], tuple[()]]:
        return InputRotation, ()

    def __call__(self, x: Tensor, key: bytes, signs: Tensor) -> Tensor:
        """U x for U = H diag(signs). `key` is the bytes of the signs; the cache compares it."""
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
