"""A compressed embedding in the place of an `nn.Embedding`, and a head that shares its table.

A rotated table is W_r = W U^T: a look-up rotates the rows that it found back with U^T, and a head that
shares the table computes W_r (U x).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...base.errors import UsageError
from ..formats.base import Format
from ..transforms.activations import rotate
from .base import CompressedModule


class CompressedEmbedding(CompressedModule):
    """A table of `num_embeddings` rows of `embedding_dim` numbers; looked-up rows are multiplied by
    `scale`.

    `scale` is for models whose embedding does so itself (Gemma); it does not touch a tied head.
    With `input_signs` the rows are stored rotated, and a look-up turns back those that it found.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        format: Format,
        scale: float | None = None,
        dtype: torch.dtype | None = None,
        input_signs: bool = False,
    ) -> None:
        super().__init__((num_embeddings, embedding_dim), format, dtype, input_signs)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.scale_of_rows = scale

    @classmethod
    def of(
        cls, embedding: nn.Embedding, format: Format, input_signs: bool = False
    ) -> CompressedEmbedding:
        """An unfilled layer (on `embedding`'s device) that can take the place of `embedding`."""
        scale = getattr(embedding, "scalar_embed_scale", None)
        plain = type(embedding).forward is nn.Embedding.forward
        if embedding.max_norm is not None or (not plain and scale is None):
            kind = type(embedding).__name__
            raise UsageError(f"{kind} computes more than a look-up; leave it out of the plan")
        with embedding.weight.device:
            dtype = embedding.weight.dtype
            new = cls(
                embedding.num_embeddings, embedding.embedding_dim, format, scale, dtype, input_signs
            )
        return new.train(embedding.training)

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        dtype = self.weight.dtype
        # Rotations are undone before the numbers are rounded to a narrow dtype.
        wide = torch.float32 if self.input_rotation and dtype != torch.float64 else dtype
        if self._kept is None:
            found = self.format.unpack_rows(self.qweight(), ids.flatten().long()).to(wide)
            rows = found.view(*ids.shape, self.embedding_dim)
        else:
            rows = nn.functional.embedding(ids, self.dense(wide))
        if self.input_rotation:
            rows = rotate(rows, self._signs("input_signs", self.embedding_dim)[1], inverse=True).to(
                dtype
            )
        if self.scale_of_rows is None:
            return rows
        # Rounded to the rows' dtype first, as the models do.
        return rows * torch.tensor(self.scale_of_rows, dtype=rows.dtype, device=rows.device)

    def logits(
        self, x: Float[Tensor, "*batch dim"], bias: Tensor | None = None
    ) -> Float[Tensor, "*batch rows"]:
        """table @ x + bias: what a head that shares this table computes."""
        x = self.as_stored(x)
        return nn.functional.linear(x, self.dense(x.dtype).to(x.device), bias)

    def as_stored(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """`x` in the basis of the stored rows: what their product is taken with."""
        if not self.input_rotation:
            return x
        return rotate(x, self._signs("input_signs", self.embedding_dim)[1].to(x.device))

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}, {self.format!r}"
        return text + (", rows rotated" if self.input_rotation else "")


class TiedHead(nn.Module):
    """logits = table @ x with the table of `embedding`; it owns no tensors (but a bias, when the
    head had one).
    """

    embedding: CompressedEmbedding

    def __init__(self, embedding: CompressedEmbedding, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        # Not a submodule: the table belongs to the embedding and is saved once.
        object.__setattr__(self, "embedding", embedding)
        self.in_features, self.out_features = embedding.embedding_dim, embedding.num_embeddings
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        """The embedding's empty `weight`, for its dtype."""
        return self.embedding.weight

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        return self.embedding.logits(x, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
