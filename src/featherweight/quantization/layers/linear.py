"""A linear layer with a compressed matrix, which replaces an `nn.Linear`.

A rotated matrix is stored as W_r = V W U^T, with U = H diag(S_in), V = H diag(S_out), an
orthonormal Hadamard matrix H and signs S_in and S_out. The layer computes

    y = V^T W_r (U x) + b = S_out * H^T(W_r H(S_in * x)) + b.

Rotations are computed in float32 (in float64 for float64 inputs). Layers that read the same tensor
(q/k/v, gate/up) share one `InputRotation`, so that the tensor is rotated once.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...base.errors import UsageError
from ..formats.base import Format
from ..layouts.description import ROTATIONS
from ..transforms.activations import InputRotation, rotate
from .base import CompressedModule

# Subclasses of nn.Linear in transformers that compute the same product and bias in two steps.
SAME_PRODUCT = ("FalconLinear",)


class CompressedLinear(CompressedModule):
    """y = V^T(W_r (U x)) + bias, with W_r decoded from the stored tensors of `format`.

    bias: whether the layer has one. input_signs: whether the input is rotated. output_rotation:
    the rotation of the output, "none", "block64" or "full". The sign bits are the buffers
    `input_signs` and `output_signs`. dtype: of the bias. Raises UsageError for another
    `output_rotation`.
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
        device: torch.device | None = None,
    ) -> None:
        if output_rotation not in ROTATIONS:
            raise UsageError(f"output_rotation={output_rotation!r}: choose {', '.join(ROTATIONS)}")
        super().__init__((out_features, in_features), format, dtype, input_signs, device)
        self.in_features, self.out_features = in_features, out_features
        self.output_rotation = output_rotation
        if output_rotation != "none":
            self.register_sign_bits("output_signs", out_features, device)
        self.bias = None
        if bias:
            zeros = torch.zeros(out_features, dtype=dtype, device=device)
            self.bias = nn.Parameter(zeros, requires_grad=False)
        self.memo = InputRotation()

    @classmethod
    def of(
        cls,
        linear: nn.Linear,
        format: Format,
        input_signs: bool = False,
        output_rotation: str = "none",
    ) -> CompressedLinear:
        """A layer without data that can replace `linear`, on the same device and with its bias.

        Raises UsageError for a subclass of `nn.Linear` that computes something else.
        """
        kind = type(linear).__name__
        if type(linear).forward is not nn.Linear.forward and kind not in SAME_PRODUCT:
            raise UsageError(
                f"{kind} computes more than a matrix product; leave it out of the plan"
            )
        layer = cls(
            linear.in_features,
            linear.out_features,
            format,
            linear.bias is not None,
            input_signs,
            output_rotation,
            linear.weight.dtype,
            linear.weight.device,
        )
        layer.bias = linear.bias
        return layer.train(linear.training)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        if self.input_rotation:
            x = self.memo(x, *self._signs("input_signs", self.in_features))
        if self.output_rotation == "none":
            return nn.functional.linear(x, self.dense(x.dtype), self.bias)
        y = nn.functional.linear(x, self.dense(x.dtype))
        y = rotate(
            y, self._signs("output_signs", self.out_features)[1], self.output_rotation, inverse=True
        )
        return y if self.bias is None else y + self.bias

    def effective(self) -> Float[Tensor, "rows columns"]:
        """V^T W_r U in float32: the matrix of an `nn.Linear` that computes the same function."""
        with torch.inference_mode(False), torch.no_grad():
            w = super().effective()
            if self.output_rotation != "none":
                signs = self._signs("output_signs", self.out_features)[1]
                rows = rotate(w.T.contiguous(), signs, self.output_rotation, inverse=True)
                w = rows.T.contiguous()
            return w

    def extra_repr(self) -> str:
        text = f"{self.in_features}, {self.out_features}, {self.format!r}"
        text += f", bias={self.bias is not None}"
        text += ", input rotated" if self.input_rotation else ""
        return text + (
            f", output_rotation={self.output_rotation}" if self.output_rotation != "none" else ""
        )
