"""Notices that the weights of a model in memory have changed, as training does.

Every in-place operation of torch raises the version counter of its tensor, and a replaced tensor
has another address. Counters and addresses say *whether* something changed since the start, and are
read in about a millisecond. They do not say what the weights are now, because another run counts as
far with other weights. So after a change the weights are hashed, once for each state.

Not noticed: writes that hide from torch, through `tensor.data` or through numpy memory.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


class WeightVersion:
    """The state of the weights of `model`, which is kept alive by this object."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._start = self._counters()
        self._last: tuple[object, str] = (self._start, "")

    def digest(self) -> str:
        """Empty as long as nothing has changed since this object was made; else 16 hexadecimal
        digits of the SHA-256 of names, dtypes, shapes and numbers. Hashing reads about a gigabyte a
        second.
        """
        counters = self._counters()
        if counters != self._last[0]:
            self._last = (counters, "" if counters == self._start else self._hash())
        return self._last[1]

    def _tensors(self) -> dict[str, Tensor]:
        return {
            name: tensor
            for name, tensor in self._model.state_dict(keep_vars=True).items()
            if isinstance(tensor, Tensor)
        }

    def _counters(self) -> tuple[tuple[str, int, int], ...]:
        return tuple(
            (name, tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
            for name, tensor in self._tensors().items()
        )

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in self._tensors().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]
