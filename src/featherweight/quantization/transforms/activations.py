"""Rotating activations: U x and its inverse, differentiable, and a memo so that layers which read
one tensor share it.

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
    """x -> H(s * x), or its inverse (= transpose) s * H^T(x); nothing is saved, so the result may
    be shared freely.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, signs: Tensor, rotation: str, inverse: bool) -> Tensor:
        ctx.signs, ctx.rotation, ctx.inverse = signs, rotation, inverse
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        with torch.autocast(x.device.type, enabled=False):
            signs = signs.to(wide)
            if inverse:
                return (signs * rotate_rows(x.to(wide), rotation, transpose=True)).to(x.dtype)
            return rotate_rows(signs * x.to(wide), rotation).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return _Rotate.apply(grad, ctx.signs, ctx.rotation, not ctx.inverse), None, None, None


def rotate(
    x: Float[Tensor, "*batch n"],
    signs: Float[Tensor, " n"],
    rotation: str = "full",
    inverse: bool = False,
) -> Float[Tensor, "*batch n"]:
    """U x for each vector of `x`, U = H diag(signs), or U^T x when `inverse`; differentiable in
    `x`.

    `rotation`: "full" (H of the whole width) or "block64" (blocks of 64, the rest a smaller one).
    """
    return _Rotate.apply(x, signs, rotation, inverse)


@dataclass(slots=True, weakref_slot=True)
class _Entry:
    key: tuple[bytes, bool]
    version: int
    source: weakref.ref[Tensor] | None = None
    result: Tensor | None = None


class InputRotation:
    """Remembers the last rotated input (of each thread), so that layers which read one tensor
    rotate it once.

    The answer is reused only for the same tensor object, unmodified since (`_version`), with equal
    signs and the same need for gradients; it is dropped as soon as the input dies. Inference-mode
    tensors do not count their modifications, so they are rotated every time; writing through
    `.data` or numpy is invisible to any such memo.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> InputRotation:
        return InputRotation()

    def __reduce__(self) -> tuple[type[InputRotation], tuple[()]]:
        return InputRotation, ()

    def __call__(self, x: Tensor, key: bytes, signs: Tensor) -> Tensor:
        """rotate(x, signs); `key` identifies the signs."""
        if torch.compiler.is_compiling() or x.is_inference() or torch.is_inference_mode_enabled():
            return rotate(x, signs)
        full_key = (key, x.requires_grad and torch.is_grad_enabled())
        entry = getattr(self._local, "entry", None)
        if entry is not None and entry.result is not None:
            if entry.source() is x and entry.version == x._version and entry.key == full_key:
                return cast(Tensor, entry.result)
        entry = _Entry(full_key, x._version)
        entry.source = weakref.ref(x, _forget(weakref.ref(entry)))
        entry.result = result = rotate(x, signs)
        self._local.entry = entry
        return result


def _forget(entry: weakref.ref[_Entry]) -> Callable[[object], None]:
    def drop(_: object) -> None:
        alive = entry()
        if alive is not None:
            alive.result = None

    return drop
