"""Curvature on disk: one safetensors file of packed lower triangles, read one layer at a time.

A file is a snapshot of the running sums. A collection that was interrupted continues from its
newest snapshot and ends with the same bytes as an uninterrupted one. Triangles are float32 and take
half of the memory of the square matrices (0.6 GB for a model of 135M weights with both sides of the
Fisher information).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from torch import Tensor

from ...base.errors import BadInput
from ...models.tensors import write_shard
from .base import Curvature, Factors, Sums


def save(sums: Sums, path: Path, fingerprint: str = "") -> None:
    """Write a snapshot to `path` atomically. `fingerprint` identifies the model, the text and the
    method, so that a collection is not resumed with others.
    """
    triangles = {key: pack_triangle(matrix) for key, matrix in sums.matrices.items()}
    metadata = {
        "numbers": json.dumps(sums.numbers, sort_keys=True),
        "owners": json.dumps(sums.owners, sort_keys=True),
        "tokens": str(sums.tokens),
        "sequences": str(sums.sequences),
        "fingerprint": fingerprint,
    }
    write_shard(path, triangles, metadata)


class Snapshot:
    """A saved collection, whose matrices are read one by one.

    Raises BadInput for a damaged file.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.file = safe_open(str(path), framework="pt")
            metadata = self.file.metadata()
            self.numbers: dict[str, float] = json.loads(metadata["numbers"])
            self.owners: dict[str, str] = json.loads(metadata["owners"])
            self.tokens, self.sequences = int(metadata["tokens"]), int(metadata["sequences"])
            self.fingerprint = metadata["fingerprint"]
        except Exception as error:
            raise BadInput(
                f"{path} is not a readable curvature collection ({error}); collect it again"
            ) from error

    def sums(self, names: set[str] | None = None) -> Sums:
        """The running sums; with `names`, only those of these layers."""
        sums = Sums()
        sums.numbers, sums.owners = self.numbers, self.owners
        sums.tokens, sums.sequences = self.tokens, self.sequences
        # A layer's Gram is stored under the name of the layer that owns it.
        keep = None if names is None else names | {self.owners.get(name, name) for name in names}
        for key in self.file.keys():  # noqa: SIM118 (safe_open is not a mapping)
            if keep is None or key.split("/", 1)[1] in keep:
                sums.matrices[key] = unpack_triangle(self.file.get_tensor(key))
        return sums

    def factors(self, curvature: Curvature, name: str) -> Factors:
        """Factors of the layer `name`; BadInput when it was not collected."""
        if name not in self.owners:
            raise BadInput(
                f"{name} is not in the saved curvature; it was collected from another model"
            )
        return curvature.factors(self.sums({name}), name)


def pack_triangle(h: Float[Tensor, "n n"]) -> Float[Tensor, " packed"]:
    """The lower triangle of `h`, row by row."""
    n = h.shape[0]
    return h[_lower_mask(n, h.device)]


def unpack_triangle(triangle: Float[Tensor, " packed"]) -> Float[Tensor, "n n"]:
    """A square matrix with this lower triangle and zeros above it."""
    n = (math.isqrt(8 * triangle.numel() + 1) - 1) // 2
    h = torch.zeros(n, n, device=triangle.device)
    h[_lower_mask(n, triangle.device)] = triangle
    return h


def _lower_mask(n: int, device: torch.device) -> Bool[Tensor, "n n"]:
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()
