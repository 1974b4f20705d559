"""A compressed embedding that replaces an `nn.Embedding`, and a head that shares its table.

The stored table may be rotated, W_r = W U^T. Then a look-up multiplies the rows of W_r by U, and a
head that shares the table computes W_r (U x).
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
    """A compressed table of `num_embeddings` rows of `embedding_dim` numbers.

    scale: factor of the rows in a look-up, for models that scale embeddings (Gemma); a tied head is
    not scaled. input_signs: whether the rows are stored rotated; look-ups then undo the rotation.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        format: Format,
        scale: float | None = None,
        dtype: torch.dtype | None = None,
        input_signs: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__((num_embeddings, embedding_dim), format, dtype, input_signs, device)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.scale_of_rows = scale

    @classmethod
    def of(
        cls, embedding: nn.Embedding, format: Format, input_signs: bool = False
    ) -> CompressedEmbedding:
        """A layer without data that can replace `embedding`, on the same device.

        Raises UsageError for an embedding that computes more than a look-up and a scale.
        """
        scale = getattr(embedding, "scalar_embed_scale", None)
        is_look_up = type(embedding).forward is nn.Embedding.forward
        if embedding.max_norm is not None or (not is_look_up and scale is None):
            kind = type(embedding).__name__
            raise UsageError(f"{kind} computes more than a look-up; leave it out of the plan")
        layer = cls(
            embedding.num_embeddings,
            embedding.embedding_dim,
            format,
            scale,
            embedding.weight.dtype,
            input_signs,
            embedding.weight.device,
        )
        return layer.train(embedding.training)

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        dtype = self.weight.dtype
        # Rotated rows are decoded in float32, so that the rotation is undone before the numbers are
        # rounded to half precision.
        row_dtype = torch.float32 if self.input_rotation and dtype != torch.float64 else dtype
        if self._dense_cache is None:
            rows = self.format.unpack_rows(self.qweight(), ids.flatten().long()).to(row_dtype)
            rows = rows.view(*ids.shape, self.embedding_dim)
        else:
            rows = nn.functional.embedding(ids, self.dense(row_dtype))
        if self.input_rotation:
            signs = self._signs("input_signs", self.embedding_dim)[1]
            rows = rotate(rows, signs, inverse=True).to(dtype)
        if self.scale_of_rows is None:
            return rows
        # The scale is first rounded to the dtype of the rows, as in the models of transformers.
        return rows * torch.tensor(self.scale_of_rows, dtype=rows.dtype, device=rows.device)

    def logits(
        self, x: Float[Tensor, "*batch dim"], bias: Tensor | None = None
    ) -> Float[Tensor, "*batch rows"]:
        """table @ x + bias: the output of a head that shares this table."""
        x = self.as_stored(x)
        return nn.functional.linear(x, self.dense(x.dtype).to(x.device), bias)

    def as_stored(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The vector by which the stored rows are multiplied: U x if they are rotated, else x."""
        if not self.input_rotation:
            return x
        return rotate(x, self._signs("input_signs", self.embedding_dim)[1].to(x.device))

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}, {self.format!r}"
        return text + (", rows rotated" if self.input_rotation else "")


class TiedHead(nn.Module):
    """A head that computes logits = table @ x + bias with the table of `embedding`. The bias is its
    only parameter.
    """

    embedding: CompressedEmbedding

    def __init__(self, embedding: CompressedEmbedding, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        # The embedding is not registered as a submodule, so that its table is saved only once.
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
