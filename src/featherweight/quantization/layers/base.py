"""The base class of modules with compressed weights: stored buffers, decoding, and the signs of
rotations.

The buffers of a module are the stored tensors, under the names in `format.stored`, so its state
dict is what a checkpoint stores. Stored buffers keep their dtype: `model.half()` or
`dtype=bfloat16` changes activations and biases, never codes or scales. Codes are decoded in float32
and cast to the dtype of the activations for the product.

`weight` is an empty tensor. Its dtype is the one in which the layer computes, and `.to()` changes
it. In a checkpoint, it makes software that does not know the format stop at a size mismatch instead
of running with random weights.

Cost: every forward pass decodes the matrix. Inside `keep_decoded(model)` each matrix is decoded
only once.
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
    """A matrix of `shape` (rows, columns) that is stored in `format`.

    dtype: the dtype in which the module computes. input_signs: whether the input is rotated; the
    module then has a buffer of sign bits. device: of the buffers.
    """

    weight: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        format: Format,
        dtype: torch.dtype | None,
        input_signs: bool,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.format = format
        self.shape = shape
        self.input_rotation = input_signs
        self.register_buffer("weight", torch.empty(0, dtype=dtype, device=device))
        for name, (size, kind) in format.stored(shape).items():
            self.register_buffer(name, torch.empty(size, dtype=DTYPES[kind], device=device))
        if input_signs:
            self.register_sign_bits("input_signs", shape[1], device)
        # Dense matrices by dtype inside `keep_decoded`, else None.
        self._dense_cache: dict[torch.dtype, Tensor] | None = None
        self._sign_cache: dict[str, tuple[Tensor, int, bytes, Tensor]] = {}

    def register_sign_bits(self, name: str, num_signs: int, device: torch.device | None) -> None:
        """Add the buffer `name` for the sign bits of the rotation of one side."""
        size = -(-num_signs // 8)
        self.register_buffer(name, torch.empty(size, dtype=torch.uint8, device=device))

    def stored_names(self) -> list[str]:
        """Names of the buffers that hold the compressed weight, sign bits included."""
        return [name for name in self._buffers if name != "weight"]

    def qweight(self) -> QWeight:
        """The compressed matrix, without the sign bits."""
        return QWeight(
            self.format,
            self.shape,
            {name: self.get_buffer(name) for name in self.format.stored(self.shape)},
        )

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the stored tensors into the buffers.

        Raises UsageError when a name, shape or dtype is not what the format stores.
        """
        names = self.stored_names()
        if set(tensors) != set(names):
            raise UsageError(
                f"{self.format!r} stores {', '.join(names)} here, not {', '.join(tensors)}"
            )
        for name in names:
            buffer, tensor = self.get_buffer(name), tensors[name]
            if buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                raise UsageError(
                    f"{name} of {self.format!r} is {tuple(buffer.shape)} {buffer.dtype}, "
                    f"not {tuple(tensor.shape)} {tensor.dtype}"
                )
            is_meta = buffer.is_meta
            self._buffers[name] = tensor.detach().clone() if is_meta else buffer.copy_(tensor)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The stored matrix in `dtype`, decoded but still rotated; cached inside `keep_decoded`."""
        if self._dense_cache is None:
            return self._decode(dtype)
        if dtype not in self._dense_cache:
            self._dense_cache[dtype] = self._decode(dtype)
        return self._dense_cache[dtype]

    def _decode(self, dtype: torch.dtype) -> Tensor:
        # Inference mode is off here, because a cached matrix may be used under autograd later.
        with torch.inference_mode(False), torch.no_grad():
            return self.qweight().dense().to(dtype)

    def effective(self) -> Float[Tensor, "rows columns"]:
        """W_r U in float32: the matrix of a dense layer that computes the same function."""
        with torch.inference_mode(False), torch.no_grad():
            w = self.dense()
            if not self.input_rotation:
                return w
            return rotate(w, self._signs("input_signs", self.shape[1])[1], inverse=True)

    def _signs(self, name: str, num: int) -> tuple[bytes, Tensor]:
        """The sign bits as bytes and the signs as floats. They are cached until the buffer
        changes.
        """
        bits = self.get_buffer(name)
        version = -1 if bits.is_inference() else bits._version
        entry = self._sign_cache.get(name)
        if entry is None or entry[0] is not bits or entry[1] != version:
            with torch.inference_mode(False):
                entry = (bits, version, bits.cpu().numpy().tobytes(), unpack_signs(bits, num))
            self._sign_cache[name] = entry
        return entry[2], entry[3]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CompressedModule:
        # Stored buffers move between devices with the module, but never change their dtype.
        buffers = {name: self.get_buffer(name) for name in self.stored_names()}
        for name in buffers:
            self._buffers[name] = None
        try:
            super()._apply(fn, recurse)
            for name, tensor in buffers.items():
                result = fn(tensor)
                same_dtype = result.dtype == tensor.dtype
                buffers[name] = result if same_dtype else tensor.to(result.device)
        finally:
            self._buffers.update(buffers)
        if self._dense_cache is not None:
            self._dense_cache = {}
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self._dense_cache is not None:
            self._dense_cache = {}
