"""Stored matrices with random codes, for tests of what computes with them."""

from __future__ import annotations

import torch

from featherweight.models.tensors import DTYPES
from featherweight.quantization.formats.base import Format, QWeight


def random_qweight(format: Format, shape: tuple[int, int]) -> QWeight:
    """Any codes are a weight; scales of about one."""
    tensors = {}
    for name, (size, kind) in format.stored(shape).items():
        dtype = DTYPES[kind]
        random = torch.randint(0, 256, size) if dtype == torch.uint8 else torch.rand(size).add(0.5)
        tensors[name] = random.to(dtype)
    return QWeight(format, shape, tensors)
