"""The feedback loop against slow textbook twins: an index slip gives codes that are still better
than nearest.
"""

from __future__ import annotations

import pytest
import torch

from featherweight.base.errors import BadInput, UsageError
from featherweight.quantization.curvature.base import Factors
from featherweight.quantization.curvature.damping import damp, normalise
from featherweight.quantization.formats import Int, Trellis
from featherweight.quantization.rounding import LDLQ, YAQA, Nearest
from featherweight.quantization.rounding.base import block_ldl, damped_split, feedback


def spd(n: int, seed: int, rank: int | None = None) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n if rank is None else rank, n, generator=g) * torch.linspace(0.3, 2.0, n)
    return x.T @ x / len(x) + 0.05 * torch.eye(n)


def weights(m: int, n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def round_half(
    x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    snapped = (x * 2).round() / 2
    return snapped, snapped.flatten(1)


def literal(w, h_out, h_in, b_o, b_i):  # type: ignore[no-untyped-def]
    """W_hat = Q(W + L_O^T D L_I - D), one tile at a time, the whole product each time (float64)."""
    (m, n) = w.shape
    l_o = block_ldl(h_out, b_o).double() + torch.eye(m)
    l_i = block_ldl(h_in, b_i).double() + torch.eye(n)
    w = w.double()
    light, delta = torch.zeros_like(w), torch.zeros_like(w)
    for r in reversed(range(0, m, b_o)):
        for c in reversed(range(0, n, b_i)):
            here = (slice(r, r + b_o), slice(c, c + b_i))
            target = (w + l_o.T @ delta @ l_i - delta)[here]
            light[here] = (target * 2).round() / 2
            delta[here] = w[here] - light[here]
    return light


@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (4, 6)])
def test_cached_feedback_equals_literal(tile: tuple[int, int]) -> None:
    w, h_o, h_i = weights(8, 12), spd(8, 1), spd(12, 2)
    values, _ = feedback(w, block_ldl(h_o, tile[0]), block_ldl(h_i, tile[1]), round_half, tile)
    assert torch.equal(values.double(), literal(w, h_o, h_i, *tile))


def test_feedback_equals_gptq_on_kron() -> None:
    w, h_o, h_i = weights(5, 4), spd(5, 3), spd(4, 4)
    values, _ = feedback(w, block_ldl(h_o, 1), block_ldl(h_i, 1), round_half, (1, 1))
    flat, _ = feedback(
        w.reshape(1, 20), None, block_ldl(torch.kron(h_o, h_i), 1), round_half, (1, 1)
    )
    assert torch.equal(values, flat.view(5, 4))


def gptq(w: torch.Tensor, h: torch.Tensor, snap) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Textbook optimal brain quantization in a fixed order (last column first): invert what is
    left, compensate.
    """
    w, h = w.double().clone(), h.double()
    for j in reversed(range(w.shape[1])):
        inverse = torch.linalg.inv(h[: j + 1, : j + 1])
        q = snap(w[:, j].float(), j).double()
        scaled = (w[:, j] - q) / inverse[j, j]
        w[:, :j] -= scaled[:, None] * inverse[j, :j]
        w[:, j] = q
    return w.float()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [None, 16])
def test_ldlq_with_int_is_gptq(symmetric: bool, group: int | None) -> None:
    w, h = weights(16, 64, 5), spd(64, 6)
    format = Int(bits=3, group=group, symmetric=symmetric)
    params = format.fit(w).stored()
    rows = torch.arange(16)

    def snap(column: torch.Tensor, j: int) -> torch.Tensor:
        return format.snap(column.view(16, 1, 1), params, rows, torch.full_like(rows, j))[0].view(
            16
        )

    solved = LDLQ(damp=0.01).solve(w, Factors(h), format).weight.dense()
    damped, _ = damp(normalise(h, "h"), 0.01, "h")
    assert torch.equal(solved, gptq(w, damped, snap))


@pytest.mark.parametrize("format", [Int(bits=2, group=32), Trellis(bits=2)])
def test_yaqa_identity_output_is_ldlq_bitwise(format: Int | Trellis) -> None:
    w, h = weights(64, 128, 7), spd(128, 8)
    one = LDLQ().solve(w, Factors(h), format).weight
    lower = damped_split(h, 128, format.tile[1], 0.01, "h")[0]
    params = format.fit(w).stored()
    zero = torch.zeros(64, 64)
    snap = lambda x, r, c: format.snap(x, params, r, c)  # noqa: E731
    wave, _ = feedback(w, None, lower, snap, format.tile, schedule="wavefront")
    both, codes = feedback(w, zero, lower, snap, format.tile)
    assert torch.equal(wave, both)
    two = YAQA(damp=0.01, input="gram").solve(w, Factors(h, None, torch.eye(64)), format).weight
    assert torch.equal(two.tensors["codes"], format.pack(codes, params, (64, 128)).tensors["codes"])
    agree = (one.dense() == both).float().mean()
    assert agree > 0.9  # another summation order: a code may flip, and what follows it


def test_block_ldl_diagonal_blocks_are_identity() -> None:
    h = spd(12, 9)
    lower = block_ldl(h, 4).double()
    for i in range(0, 12, 4):
        assert torch.all(lower[i : i + 4, i : i + 4] == 0)
    whole = lower + torch.eye(12)
    inverse = torch.linalg.inv(whole)
    d = inverse @ h.double() @ inverse.T
    blocks = torch.block_diag(*[d[i : i + 4, i : i + 4] for i in range(0, 12, 4)])
    assert torch.allclose(d, blocks, atol=1e-5)


@pytest.mark.parametrize("format", [Int(bits=3, group=32), Trellis(bits=2)])
def test_identity_curvature_is_nearest(format: Int | Trellis) -> None:
    w = weights(64, 64, 10)
    eye = torch.eye(64)
    nearest = Nearest().solve(w, None, format).weight
    for method in (LDLQ(), YAQA()):
        found = method.solve(w, Factors(3 * eye, 3 * eye, 5 * eye), format).weight
        assert torch.equal(found.tensors["codes"], nearest.tensors["codes"])


def test_diagonal_output_changes_no_codes() -> None:
    w, h = weights(64, 64, 11), spd(64, 12)
    diagonal = torch.diag(torch.linspace(0.1, 5.0, 64))
    format = Int(bits=2, group=32)
    a = YAQA().solve(w, Factors(h, h, torch.eye(64)), format).weight
    b = YAQA().solve(w, Factors(h, h, diagonal), format).weight
    assert torch.equal(a.tensors["codes"], b.tensors["codes"])


def test_input_side_is_gram_fisher_or_their_mean() -> None:
    gram, fisher = spd(32, 16).float(), 1000 * spd(32, 17).float()
    both, one = Factors(gram, fisher, torch.eye(32)), Factors(gram)
    sides = {
        kind: normalise(YAQA(input=kind).input_side(both, "h"), "h")
        for kind in ("gram", "fisher", "mean")
    }
    assert torch.equal(sides["gram"], normalise(gram, "h")) and torch.equal(
        sides["fisher"], normalise(fisher, "h")
    )
    assert torch.allclose(sides["mean"], (sides["gram"] + sides["fisher"]) / 2)
    assert YAQA().input_side(one, "h") is gram
    with pytest.raises(UsageError, match="choose one of gram, fisher, mean"):
        YAQA(input="grams")


def test_two_sided_falls_one_sided_rises() -> None:
    """With an output side of low rank, the two-sided loss falls although the layer's own loss
    rises.
    """
    w, h_i = weights(64, 64, 13), spd(64, 14)
    h_o = spd(64, 15, rank=6)
    format = Int(bits=2, group=32)
    factors = Factors(h_i, h_i, h_o)

    def losses(method: LDLQ | YAQA) -> tuple[float, float]:
        d = w - method.solve(w, factors, format).weight.dense()
        return float(((d @ h_i) * d).sum()), float(((d @ h_i) * (h_o @ d)).sum())

    own, whole = losses(LDLQ())
    own_two, whole_two = losses(YAQA(damp_output=0.01))
    assert whole_two < 0.9 * whole
    assert own_two > own


def test_non_positive_definite_is_damped_not_replaced() -> None:
    h = torch.diag(torch.tensor([1.0, 1.0, 1.0, -0.02]))
    damped, used = damp(normalise(h, "x"), 0.001, "model.layers.0.x")
    assert used > 0.001
    assert torch.allclose(damped - used * torch.eye(4, dtype=damped.dtype), normalise(h, "x"))
    with pytest.raises(BadInput, match=r"model\.layers\.0\.x"):
        damp(-10 * torch.eye(4, dtype=torch.float64), 0.01, "model.layers.0.x")


def test_non_finite_weights_name_the_layer() -> None:
    w = weights(16, 32)
    w[3, 4] = float("nan")
    for method in (Nearest(), LDLQ(), YAQA()):
        with pytest.raises(BadInput, match=r"layers\.7.*not finite"):
            method.solve(w, Factors(torch.eye(32)), Int(bits=4), "layers.7")
    with pytest.raises(BadInput, match="needs curvature"):
        LDLQ().solve(weights(16, 32), None, Int(bits=4), "layers.7")


def test_padding_is_not_seen_by_the_weights() -> None:
    """Odd shapes give what the same columns of a padded problem give, and cut back to shape."""
    w, h = weights(30, 50, 16), spd(50, 17)
    light = LDLQ().solve(w, Factors(h), Trellis(bits=3)).weight.dense()
    assert light.shape == (30, 50)
    assert float((w - light).square().mean()) < 0.1
