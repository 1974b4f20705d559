"""The contract of every format, the codes' golden values, and their error on N(0,1)."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from featherweight.base import spec
from featherweight.base.errors import BadInput, UsageError
from featherweight.models.tensors import DTYPES
from featherweight.ops import lanes
from featherweight.ops.gf2 import hash_states
from featherweight.quantization import formats
from featherweight.quantization.formats import Int, Ternary, Trellis, trellis_codes
from featherweight.quantization.formats.base import Format, Params
from featherweight.quantization.layouts import BY_FORMAT
from featherweight.quantization.layouts.trellis import code_table, normal_quantiles
from featherweight.quantization.rounding import Nearest

# Published examples of the hash's matrix at 2 bits, to check the arithmetic.
GOLDEN = {
    12: (0xB2, 0xE7, 0x82, 0x11),
    14: (0x29, 0x66, 0x9D, 0x09, 0x93, 0x11),
    16: (0x67, 0xAF, 0x49, 0x4A, 0x44, 0x16, 0x9A, 0xDB),
}
EVERY = [
    *(Int(bits=b) for b in range(2, 9)),
    Int(bits=4, group=32),
    Int(bits=3, group=16, symmetric=False),
    Int(bits=2, group=10, symmetric=False),
    Int(bits=4, group=32, portable=True),
    Int(bits=4, symmetric=False, portable=True),
    Ternary(),
    Ternary(group=16),
    *(Trellis(bits=b) for b in (1, 2, 3, 4)),
    Trellis(bits=2, L=14),
    Trellis(bits=2, code="1mad"),
    Trellis(bits=3, code="3inst"),
]


def test_all_are_covered() -> None:
    assert {type(f).__name__ for f in EVERY} == set(formats.__all__)


@pytest.mark.parametrize("format", EVERY, ids=repr)
@pytest.mark.parametrize("shape", [(64, 320), (30, 50), (17, 80)])
def test_contract(format: Format, shape: tuple[int, int]) -> None:
    if isinstance(format, (Int, Ternary)) and format.group is not None and shape[1] % format.group:
        with pytest.raises(UsageError, match=f"layer has {shape[1]} inputs"):
            format.check(shape, "layer")
        return
    w = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    w[0] = 0
    packed = Nearest().solve(w, None, format).weight
    stored = format.stored(shape)
    assert {k: (tuple(t.shape), t.dtype) for k, t in packed.tensors.items()} == {
        k: (size, DTYPES[kind]) for k, (size, kind) in stored.items()
    }
    ledger = format.ledger(shape)
    assert ledger.total == 8 * sum(t.numel() * t.element_size() for t in packed.tensors.values())
    assert ledger.weights == shape[0] * shape[1]
    dense = packed.dense()
    assert dense.shape == shape and dense.dtype == torch.float32
    assert torch.isfinite(dense).all()
    if (whole := format.integers(packed)) is not None:
        zero = (
            whole.zero if isinstance(whole.zero, int) else spread(whole.zero, whole.group, shape[1])
        )
        levels = whole.codes.float() - zero
        assert levels.min() >= whole.lowest and levels.max() <= whole.highest
        assert torch.equal(levels * spread(whole.scale, whole.group, shape[1]), dense)
    rows = torch.tensor([shape[0] - 1, 0, 3, 3])
    assert torch.equal(format.unpack_rows(packed, rows), dense[rows])
    with pytest.raises(IndexError):
        format.unpack_rows(packed, torch.tensor([shape[0]]))
    padded = torch.nn.functional.pad(
        w, (0, format.padded(shape)[1] - shape[1], 0, format.padded(shape)[0] - shape[0])
    )
    params = format.fit(padded).stored()
    b_o, b_i = format.tile
    tiles = padded.view(padded.shape[0] // b_o, b_o, -1, b_i).transpose(1, 2).reshape(-1, b_o, b_i)
    index = torch.arange(len(tiles))
    columns = padded.shape[1] // b_i
    values, code = format.snap(tiles, params, index // columns, index % columns)
    whole = values.view(-1, columns, b_o, b_i).transpose(1, 2).reshape(padded.shape)
    assert torch.equal(dense, whole[: shape[0], : shape[1]])
    assert torch.equal(format.project(padded, params), whole)
    assert torch.equal(format.nearest_codes(padded, params), code)
    again, code_again = format.snap(values, params, index // columns, index % columns)
    error = float((again - values).abs().max())
    assert error <= 1e-6 or isinstance(format, Trellis)
    if not isinstance(format, Trellis):
        assert torch.equal(code, code_again)


def spread(values: torch.Tensor, group: int, columns: int) -> torch.Tensor:
    """One number for every column of a group."""
    return values.repeat_interleave(group, 1)[:, :columns].float()


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_portable_scales_are_exact_elsewhere(bits: int, symmetric: bool) -> None:
    w = (
        torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-8, 8, 64)[:, None]
    )
    params = Int(bits=bits, group=32, symmetric=symmetric, portable=True).fit(w).stored()
    scale = params.tensors["scale"].float()
    assert torch.isfinite(scale).all()
    if symmetric:
        assert torch.equal(scale.bfloat16().float(), scale)
    else:
        zero = params.tensors["zero"].float()
        assert torch.equal((scale * zero).half().float(), scale * zero)
    narrow = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    errors = [
        (Nearest().solve(narrow, None, format).weight.dense() - narrow).square().mean()
        for format in (
            Int(bits=bits, group=32, symmetric=symmetric, portable=p) for p in (True, False)
        )
    ]
    assert errors[0] < 1.01 * errors[1]  # the codes absorb the rounding of the scale


@pytest.mark.parametrize("format", EVERY, ids=repr)
def test_repr_is_the_constructor(format: Format) -> None:
    assert eval(repr(format), {"Int": Int, "Ternary": Ternary, "Trellis": Trellis}) == format


@pytest.mark.parametrize("format", EVERY, ids=repr)
def test_a_layout_is_its_format_without_torch(format: Format) -> None:
    layout = spec.parse(repr(format), BY_FORMAT)
    assert (
        repr(layout)
        == repr(format)
        == spec.text(format)
        == spec.text(layout, type(format).__name__)
    )
    for shape in ((64, 320), (30, 80)):
        assert layout.stored(shape) == format.stored(shape) and layout.ledger(
            shape
        ) == format.ledger(shape)
    assert layout.constants() == format.constants()


def test_layouts_import_no_torch() -> None:
    code = "import sys, featherweight.quantization.layouts.description\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("format", EVERY, ids=repr)
def test_projection_is_differentiable_in_its_parameters(format: Format) -> None:
    """d/d scale of scale * level is the level: the codes are constants."""
    w = torch.randn(64, 160, generator=torch.Generator().manual_seed(4))
    params = format.fit(w)
    leaves = {key: tensor.clone().requires_grad_() for key, tensor in params.tensors.items()}
    values = format.project(w, Params(format, params.shape, leaves))
    probe = torch.randn(values.shape, generator=torch.Generator().manual_seed(6))
    (values * probe).sum().backward()
    scale = leaves["scale"].detach()
    rows = scale.view(64, -1).shape[1]
    spread_scale = scale.view(64, rows).repeat_interleave(-(-160 // rows), 1)[:, :160]
    expected = (probe * values.detach() / spread_scale).view(64, rows, -1).sum(-1).view(scale.shape)
    torch.testing.assert_close(leaves["scale"].grad, expected, rtol=1e-4, atol=1e-4)


def test_parameters_that_are_not_stored_are_not_packed() -> None:
    w = torch.randn(16, 32)
    for format in (Int(bits=4), Ternary(), Trellis(bits=2)):
        padded = torch.nn.functional.pad(
            w, (0, format.padded((16, 32))[1] - 32, 0, format.padded((16, 32))[0] - 16)
        )
        params = format.fit(padded)
        with pytest.raises(UsageError, match="is not rounded yet"):
            format.pack(format.nearest_codes(padded, params), params, (16, 32))


def test_impossible_formats_say_so() -> None:
    with pytest.raises(UsageError, match="no other program's file holds that"):
        Int(bits=8, symmetric=False, portable=True)
    for make, word in (
        (lambda: Int(bits=9), "2 to 8"),
        (lambda: Int(bits=4, group=0), "positive"),
        (lambda: Ternary(group=0), "positive"),
        (lambda: Trellis(bits=5), "1, 2, 3 or 4"),
        (lambda: Trellis(code="hyb"), "1mad"),
        (lambda: Trellis(bits=2, L=11), "12"),
        (lambda: Trellis(bits=2, L=20, code="1mad"), "8 to 16"),
    ):
        with pytest.raises(UsageError, match=word):
            make()


def test_code_golden_values() -> None:
    mad, inst = trellis_codes._mad1_values(16), trellis_codes._inst3_values(16)
    assert mad[[0, 1, 2, 65535]] == pytest.approx(
        [-1.251687, -0.838969, -0.426250, 0.412718], abs=1e-6
    )
    assert inst[[0, 1, 2, 65535]] == pytest.approx(
        [0.768066, -0.919434, 0.931641, -0.158203], abs=1e-6
    )
    assert np.sqrt((inst**2).mean()) == pytest.approx(1.24371, abs=1e-4)
    for size, one, last in ((12, 178, 57), (14, 41, 166), (16, 103, 39)):
        assert hash_states(np.array([256, 2**size - 1]), GOLDEN[size]).tolist() == [one, last]
    assert normal_quantiles()[0] == pytest.approx(-2.892901, abs=1e-3)


def test_nibble_table_is_small_and_unit() -> None:
    for bits in (1, 2, 3, 4):
        table = code_table(bits)
        assert abs(table.astype(int)).max() <= 59
        values = trellis_codes.code_values("g", bits, 12)
        assert float(values.square().mean()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("format", "bound"),
    [
        (Trellis(bits=1), 0.275),
        (Trellis(bits=2), 0.0712),
        (Trellis(bits=3), 0.0186),
        (Trellis(bits=4), 0.0049),
        (Trellis(bits=2, code="1mad"), 0.077),
        (Int(bits=2), 0.150),
        (Int(bits=3), 0.042),
        (Int(bits=4), 0.0125),
        (Ternary(), 0.192),
    ],
    ids=repr,
)
def test_mean_squared_error_on_gaussian(format: Format, bound: float) -> None:
    w = torch.randn(128, 256, generator=torch.Generator().manual_seed(5))
    dense = Nearest().solve(w, None, format).weight.dense()
    assert float((w - dense).square().mean() / w.square().mean()) < bound


@pytest.mark.parametrize("group", [None, 16])
@pytest.mark.parametrize("weighted", [False, True])
def test_ternary_scales_are_the_best(group: int | None, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(16, 32, generator=generator) ** 3
    importance = torch.rand(32, generator=generator) if weighted else None
    found = Ternary(group).fit(w, importance).stored().tensors["scale"].float()
    grid = torch.linspace(0.001, 1, 4000).view(-1, 1, 1, 1) * w.abs().max()
    parts = w.view(16, -1, group or 32)
    shares = (torch.ones(32) if importance is None else importance).view(1, -1, group or 32)

    def loss(scale: torch.Tensor) -> torch.Tensor:
        return ((parts - (parts / scale).round().clamp(-1, 1) * scale).square() * shares).sum(-1)

    assert bool((loss(found[..., None]) <= loss(grid).amin(0) * (1 + 1e-3) + 1e-6).all())


def test_ternary_codes_are_those_of_two_bit_integers() -> None:
    w = torch.tensor([[-1.0, 0.0, 1.0, 1.0] * 8] * 16)
    packed = Nearest().solve(w, None, Ternary()).weight
    assert torch.equal(packed.dense(), w)
    codes = lanes.lanes_to_int(packed.tensors["codes"], 16, 32, 2)
    assert torch.equal(codes.float(), w + 1)
    Ternary().check_codes(packed, "layer")
    packed.tensors["codes"][5] |= 0b00110000
    with pytest.raises(BadInput, match="layer holds code 3"):
        Ternary().check_codes(packed, "layer")


def test_a_trellis_table_looks_rows_up_block_by_block() -> None:
    format, shape = Trellis(bits=4), (600, 80)
    packed = (
        Nearest()
        .solve(torch.randn(shape, generator=torch.Generator().manual_seed(2)), None, format)
        .weight
    )
    rows = torch.tensor([599, 0, 255, 256, 511, 512, 3, 599])
    assert torch.equal(format.unpack_rows(packed, rows), packed.dense()[rows])
    assert format.unpack_rows(packed, rows[:0]).shape == (0, 80)
