"""Modules that hold compressed weights and compute with them.

`CompressedLinear` stands where an `nn.Linear` stood, `CompressedEmbedding` where an `nn.Embedding` stood, `TiedHead`
where a head shares that embedding's table. Their buffers are the stored tensors themselves, under the names that
`format.stored` gives them, so a checkpoint is their state dict. Stored buffers keep their dtype: `model.half()` or
`dtype=bfloat16` changes activations and biases, never codes or scales.

With rotation the stored matrix is W_r = V W U^T (U = H diag(S_in), V = H diag(S_out), H an orthonormal Hadamard
matrix), and the layer computes y = V^T W_r (U x) + b = S_out * H^T(W_r H(S_in * x)) + b. Rotations run in float32 (in
float64 for float64 inputs); layers that read the very same tensor (q/k/v, gate/up) rotate it once through the model's
`InputRotation`. Codes are decoded in float32 and cast to the activation's dtype for the product. A rotated table is
W_r = W U^T: a look-up gives U^T of the row it found, and a head that shares the table computes W_r (U x).

`weight` is an empty tensor: its dtype is the one the layer computes in, it follows `.to()`, and in a checkpoint it
makes software that does not know the format stop at a size mismatch instead of running on random weights.

Cost: every forward decodes every matrix it uses; inside `decoded(model)` each is decoded once and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..base.errors import UsageError
from .formats.base import Format, QWeight
from .transforms.activations import InputRotation, rotate
from .transforms.hadamard import OUTPUTS, unpack_signs


class _Compressed(nn.Module):
    """What the two layers share: stored buffers that never change dtype, decoding, and the signs of rotations."""

    weight: Tensor

    def __init__(self, shape: tuple[int, int], format: Format, dtype: torch.dtype | None, input_signs: bool) -> None:
        super().__init__()
        self.format = format
        self.shape = shape
        self.input_rotation = input_signs
        self.register_buffer("weight", torch.empty(0, dtype=dtype))
        for name, (size, kind) in format.stored(shape).items():
            self.register_buffer(name, torch.empty(size, dtype=kind))
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
            self.format, self.shape, {name: self.get_buffer(name) for name in self.format.stored(self.shape)}
        )

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the stored tensors in; UsageError when a name, shape or dtype is not what the format stores."""
        names = self.stored_names()
        if set(tensors) != set(names):
            raise UsageError(f"{self.format!r} stores {', '.join(names)} here, not {', '.join(tensors)}")
        for name in names:
            own, new = self.get_buffer(name), tensors[name]
            if own.shape != new.shape or own.dtype != new.dtype:
                raise UsageError(
                    f"{name} of {self.format!r} is {tuple(own.shape)} {own.dtype}, not {tuple(new.shape)} {new.dtype}"
                )
            self._buffers[name] = new.detach().clone() if own.is_meta else own.copy_(new)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The stored (rotated, when there are signs) matrix in `dtype`; kept while inside `decoded`."""
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
        """The matrix in float32 with its input rotation undone, W_r U: what a dense layer in its place would hold."""
        with torch.inference_mode(False), torch.no_grad():
            w = self.dense()
            return rotate(w, self._signs("input_signs", self.shape[1])[1], inverse=True) if self.input_rotation else w

    def _signs(self, name: str, num: int) -> tuple[bytes, Tensor]:
        packed = self.get_buffer(name)
        version = -1 if packed.is_inference() else packed._version
        cached = self._sign_cache.get(name)
        if cached is None or cached[0] is not packed or cached[1] != version:
            with torch.inference_mode(False):
                cached = (packed, version, packed.cpu().numpy().tobytes(), unpack_signs(packed, num))
            self._sign_cache[name] = cached
        return cached[2], cached[3]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Compressed:
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


class CompressedLinear(_Compressed):
    """y = V^T(W_r (U x)) + bias with W_r decoded from `format`'s stored tensors; see the top of this file.

    `input_signs` says whether the input is rotated, `output_rotation` how the output is; the sign bits are buffers
    `input_signs` and `output_signs` (ceil(n / 8) bytes). `dtype` is that of the bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        format: Format,
        bias: bool = False,
        input_signs: bool = False,
        output_rotation: str = "none",
        dtype: torch.dtype | None = None,
    ) -> None:
        if output_rotation not in OUTPUTS:
            raise UsageError(f"output_rotation={output_rotation!r}: choose {', '.join(OUTPUTS)}")
        super().__init__((out_features, in_features), format, dtype, input_signs)
        self.in_features, self.out_features = in_features, out_features
        self.output_rotation = output_rotation
        if output_rotation != "none":
            self.register_buffer("output_signs", torch.empty(-(-out_features // 8), dtype=torch.uint8))
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=dtype), requires_grad=False) if bias else None
        self.memo = InputRotation()

    @classmethod
    def of(
        cls,
        linear: nn.Linear,
        format: Format,
        input_signs: bool = False,
        output_rotation: str = "none",
    ) -> CompressedLinear:
        """An unfilled layer (on `linear`'s device) that can take the place of `linear`, whose bias it shares."""
        if type(linear).forward is not nn.Linear.forward:
            raise UsageError(f"{type(linear).__name__} computes more than a matrix product; leave it out of the plan")
        with linear.weight.device:
            new = cls(
                linear.in_features,
                linear.out_features,
                format,
                linear.bias is not None,
                input_signs,
                output_rotation,
                linear.weight.dtype,
            )
        new.bias = linear.bias
        return new.train(linear.training)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        if self.input_rotation:
            x = self.memo(x, *self._signs("input_signs", self.in_features))
        if self.output_rotation == "none":
            return nn.functional.linear(x, self.dense(x.dtype), self.bias)
        y = nn.functional.linear(x, self.dense(x.dtype))
        y = rotate(y, self._signs("output_signs", self.out_features)[1], self.output_rotation, inverse=True)
        return y if self.bias is None else y + self.bias

    def effective(self) -> Float[Tensor, "rows columns"]:
        """W-hat = V^T W_r U in float32: what an `nn.Linear` that computes the same function would hold."""
        with torch.inference_mode(False), torch.no_grad():
            w = super().effective()
            if self.output_rotation != "none":
                signs = self._signs("output_signs", self.out_features)[1]
                w = rotate(w.T.contiguous(), signs, self.output_rotation, inverse=True).T.contiguous()
            return w

    def extra_repr(self) -> str:
        text = f"{self.in_features}, {self.out_features}, {self.format!r}, bias={self.bias is not None}"
        text += ", input rotated" if self.input_rotation else ""
        return text + (f", output_rotation={self.output_rotation}" if self.output_rotation != "none" else "")


class CompressedEmbedding(_Compressed):
    """A table of `num_embeddings` rows of `embedding_dim` numbers; looked-up rows are multiplied by `scale`.

    `scale` is for models whose embedding does so itself (Gemma); it does not touch a tied head. With `input_signs` the
    rows are stored rotated, and a look-up turns back those that it found.
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
    def of(cls, embedding: nn.Embedding, format: Format, input_signs: bool = False) -> CompressedEmbedding:
        """An unfilled layer (on `embedding`'s device) that can take the place of `embedding`."""
        scale = getattr(embedding, "scalar_embed_scale", None)
        plain = type(embedding).forward is nn.Embedding.forward
        if embedding.max_norm is not None or (not plain and scale is None):
            raise UsageError(f"{type(embedding).__name__} computes more than a look-up; leave it out of the plan")
        with embedding.weight.device:
            dtype = embedding.weight.dtype
            new = cls(embedding.num_embeddings, embedding.embedding_dim, format, scale, dtype, input_signs)
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
            rows = rotate(rows, self._signs("input_signs", self.embedding_dim)[1], inverse=True).to(dtype)
        if self.scale_of_rows is None:
            return rows
        # Rounded to the rows' dtype first, as the models do.
        return rows * torch.tensor(self.scale_of_rows, dtype=rows.dtype, device=rows.device)

    def logits(self, x: Float[Tensor, "*batch dim"], bias: Tensor | None = None) -> Float[Tensor, "*batch rows"]:
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
    """logits = table @ x with the table of `embedding`; it owns no tensors (but a bias, when the head had one)."""

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


def compressed(model: nn.Module) -> dict[str, CompressedLinear | CompressedEmbedding]:
    """Full name -> layer, of every compressed layer of `model`, in module order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, (CompressedLinear, CompressedEmbedding))}


def tie_head(model: nn.Module, name: str, embedding: CompressedEmbedding) -> None:
    """Let the linear `name` use the table of `embedding`; transformers is told that it has nothing to tie there."""
    linear = model.get_submodule(name)
    if not isinstance(linear, nn.Linear) or (linear.out_features, linear.in_features) != embedding.shape:
        raise UsageError(f"{name} cannot share a table of {embedding.shape}: it is {linear}")
    model.set_submodule(name, TiedHead(embedding, linear.bias).train(linear.training))
    for prefix, part in model.named_modules():
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
            keys = getattr(part, attribute, None)
            if isinstance(keys, dict):
                start = f"{prefix}." if prefix else ""
                setattr(part, attribute, {k: v for k, v in keys.items() if f"{start}{k}" != f"{name}.weight"})


def share_inputs(model: nn.Module) -> None:
    """Give all rotated layers of `model` one `InputRotation`, so that layers which read one tensor rotate it once."""
    memo = InputRotation()
    for layer in compressed(model).values():
        if isinstance(layer, CompressedLinear):
            layer.memo = memo


@contextmanager
def decoded(model: nn.Module) -> Iterator[None]:
    """Keep each decoded matrix from its first use to the end of the block: the memory of the dense model, its speed."""
    layers = list(compressed(model).values())
    before = [layer._kept for layer in layers]
    try:
        for layer in layers:
            layer._kept = {} if layer._kept is None else layer._kept
        yield
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer._kept = kept
