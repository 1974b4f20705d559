"""Rotation keeps every quadratic loss, shares signs, and survives packing."""

from __future__ import annotations

import pytest
import torch

from featherweight.base.errors import UsageError
from featherweight.quantization.curvature.base import Factors
from featherweight.quantization.transforms.hadamard import Hadamard, pack_signs, signs, unpack_signs


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("output", ["none", "block64", "full"])
@pytest.mark.parametrize("shape", [(192, 576), (96, 210), (20, 12), (130, 1536)])
def test_rotation_preserves_proxy(shape: tuple[int, int], output: str) -> None:
    m, n = shape
    w, delta = random(m, n), random(m, n, seed=1)
    x, g = random(40, n, seed=2), random(40, m, seed=3)
    factors = Factors(x.T @ x, x.T @ x, g.T @ g)
    a = Hadamard(seed=3, output=output).rotate(w, factors, "shared", "name")
    b = Hadamard(seed=3, output=output).rotate(delta, None, "shared", "name")
    assert a.factors is not None
    loss = ((delta @ factors.gram) * (factors.output @ delta)).sum()
    rotated = ((b.w @ a.factors.gram) * (a.factors.output @ b.w)).sum()
    assert torch.isclose(loss, rotated, rtol=1e-4)
    assert torch.isclose(w.square().sum(), a.w.square().sum(), rtol=1e-5)
    assert (a.output_signs is None) == (output == "none")


def test_signs_are_shared_by_input_and_differ_by_seed() -> None:
    w = random(16, 64)
    q = Hadamard().rotate(w, None, "layers.0.q", "layers.0.q")
    k = Hadamard().rotate(w, None, "layers.0.q", "layers.0.k")
    other = Hadamard(seed=1).rotate(w, None, "layers.0.q", "layers.0.q")
    assert torch.equal(q.input_signs, k.input_signs)
    assert not torch.equal(q.input_signs, other.input_signs)


@pytest.mark.parametrize("n", [1, 8, 12, 577])
def test_signs_round_trip(n: int) -> None:
    s = signs(0, "key", n, torch.device("cpu"))
    packed = pack_signs(s)
    assert packed.numel() == -(-n // 8)
    assert torch.equal(unpack_signs(packed, n), s)


def test_unknown_output_rotation() -> None:
    with pytest.raises(UsageError, match="block64"):
        Hadamard(output="half")
