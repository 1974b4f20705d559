"""What modules with compressed weights share: stored buffers, decoding, and the signs of rotations.

Their buffers are the stored tensors themselves, under the names that `format.stored` gives them, so
a checkpoint is their state dict. Stored buffers keep their dtype: `model.half()` or
`dtype=bfloat16` changes activations and biases, never codes or scales. Codes are decoded in float32
and cast to the activation's dtype for the product.

`weight` is an empty tensor: its dtype is the one the layer computes in, it follows `.to()`, and in
a checkpoint it makes software that does not know the format stop at a size mismatch instead of
running on random weights.

Cost: every forward decodes every matrix it uses; inside `decoded(model)` each is decoded once and
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...base.errors import UsageError
from ...models.tensors import DTYPES
from ..formats.base import Format, QWeight
from ..transforms.activations import rotate
from ..transforms.hadamard import unpack_signs


class CompressedModule(nn.Module):
    """What the two layers share: stored buffers that never change dtype, decoding, and the signs of
    rotations.
    """

    weight: Tensor

    def __init__(
        self, shape: tuple[int, int], format: Format, dtype: torch.dtype | None, input_signs: bool
    ) -> None:
        super().__init__()
        self.format = format
        self.shape = shape
        self.input_rotation = input_signs
        self.register_buffer("weight", torch.empty(0, dtype=dtype))
        for name, (size, kind) in format.stored(shape).items():
            self.register_buffer(name, torch.empty(size, dtype=DTYPES[kind]))
        if input_signs:
            self.register_buffer("input_signs", torch.empty(-(-shape[1] // 8), dtype=torch.uint8))
        self._kept: dict[torch.dtype, Tensor] | None = None
        self._sign_cache: dict[str, tuple[Tensor, int, bytes, Tensor]] = {}

    def stored_names(self) -> list[str]:
        """Names of the buffers that are the compressed weight (signs included)."""
        return [name for name in self._buffers if name != "weight"]

    def qweight(self) -> QWeight:
        """The compressed matrix itself, without its signs."""
        return QWeight(
            self.format,
            self.shape,
            {name: self.get_buffer(name) for name in self.format.stored(self.shape)},
        )

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the stored tensors in; UsageError when a name, shape or dtype is not what the format
        stores.
        """
        names = self.stored_names()
        if set(tensors) != set(names):
            raise UsageError(
                f"{self.format!r} stores {', '.join(names)} here, not {', '.join(tensors)}"
            )
        for name in names:
            own, new = self.get_buffer(name), tensors[name]
            if own.shape != new.shape or own.dtype != new.dtype:
                raise UsageError(
                    f"{name} of {self.format!r} is {tuple(own.shape)} {own.dtype}, not {tuple(new.shape)} {new.dtype}"
                )
            self._buffers[name] = new.detach().clone() if own.is_meta else own.copy_(new)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The stored (rotated, when there are signs) matrix in `dtype`; kept while inside
        `decoded`.
        """
        if self._kept is None:
            return self._decode(dtype)
        if dtype not in self._kept:
            self._kept[dtype] = self._decode(dtype)
        return self._kept[dtype]

    def _decode(self, dtype: torch.dtype) -> Tensor:
        # Outside inference mode, because a kept weight may be used under autograd later.
        with torch.inference_mode(False), torch.no_grad():
            return self.qweight().dense().to(dtype)

    def effective(self) -> Float[Tensor, "rows columns"]:
        """The matrix in float32 with its input rotation undone, W_r U: what a dense layer in its
        place would hold.
        """
        with torch.inference_mode(False), torch.no_grad():
            w = self.dense()
            return (
                rotate(w, self._signs("input_signs", self.shape[1])[1], inverse=True)
                if self.input_rotation
                else w
            )

    def _signs(self, name: str, num: int) -> tuple[bytes, Tensor]:
        packed = self.get_buffer(name)
        version = -1 if packed.is_inference() else packed._version
        cached = self._sign_cache.get(name)
        if cached is None or cached[0] is not packed or cached[1] != version:
            with torch.inference_mode(False):
                cached = (
                    packed,
                    version,
                    packed.cpu().numpy().tobytes(),
                    unpack_signs(packed, num),
                )
            self._sign_cache[name] = cached
        return cached[2], cached[3]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CompressedModule:
        stored = {name: self.get_buffer(name) for name in self.stored_names()}
        for name in stored:
            self._buffers[name] = None
        try:
            super()._apply(fn, recurse)
            for name, tensor in stored.items():
                moved = fn(tensor)
                stored[name] = moved if moved.dtype == tensor.dtype else tensor.to(moved.device)
        finally:
            self._buffers.update(stored)
        if self._kept is not None:
            self._kept = {}
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self._kept is not None:
            self._kept = {}
