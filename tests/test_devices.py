"""Everything in `quantization/`, `models/` and `ops/` makes tensors on the device of its inputs.

There is no GPU in a test, so this is shown twice: the source is searched for constructors that name
no device, and the numerical functions run while torch's default device is "meta". A tensor that is
made without a device is then a meta tensor, which no computation with CPU inputs accepts.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from featherweight.quantization import formats
from featherweight.quantization.curvature.base import Factors, Sums
from featherweight.quantization.curvature.damping import damp, normalise
from featherweight.quantization.curvature.gates import expected_loss
from featherweight.quantization.formats.base import Format
from featherweight.quantization.pipeline import LayerPlan, solve_layer
from featherweight.quantization.rounding import LDLQ, YAQA, Nearest
from featherweight.quantization.rounding.base import Rounding
from featherweight.quantization.transforms import Hadamard
from featherweight.quantization.transforms.activations import rotate
from featherweight.quantization.transforms.hadamard import pack_signs, signs, unpack_signs

SOURCE = Path(__file__).parents[1] / "src" / "featherweight"
ROOMS = ("models", "ops", "quantization")
CONSTRUCTORS = {
    *("arange", "empty", "eye", "full", "hann_window", "linspace", "logspace", "ones"),
    *("rand", "randint", "randn", "randperm", "scalar_tensor", "tensor", "zeros"),
}
CPU = torch.device("cpu")


def constructors_without_device(path: Path) -> Iterator[str]:
    """Calls like torch.zeros(...) without `device=`, as "file:line"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        module = node.func.value
        is_torch = isinstance(module, ast.Name) and module.id == "torch"
        if is_torch and node.func.attr in CONSTRUCTORS:
            if all(keyword.arg not in ("device", None) for keyword in node.keywords):
                yield f"{path.relative_to(SOURCE)}:{node.lineno} torch.{node.func.attr}"


def test_every_constructor_names_a_device() -> None:
    files = [path for room in ROOMS for path in sorted((SOURCE / room).rglob("*.py"))]
    assert [line for path in files for line in constructors_without_device(path)] == []


def test_a_planted_constructor_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    (tmp_path / "new.py").write_text(
        "import torch\nx = torch.zeros(3)\ny = torch.ones(3, device=x)\n"
    )
    assert list(constructors_without_device(tmp_path / "new.py")) == ["new.py:2 torch.zeros"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), device=CPU)


def spd(n: int, seed: int) -> torch.Tensor:
    a = random(n, 2 * n, seed=seed)
    return a @ a.T / (2 * n)


ALL_FORMATS = [
    formats.Int(bits=3, group=16, symmetric=False),
    formats.Int(bits=4, portable=True),
    formats.Ternary(group=16),
    formats.Trellis(bits=2),
]


@pytest.mark.parametrize("format", ALL_FORMATS, ids=repr)
@pytest.mark.parametrize("rounding", [Nearest(), LDLQ(), YAQA()], ids=repr)
def test_layers_are_solved_on_the_device_of_their_weights(
    format: Format, rounding: Rounding
) -> None:
    w, factors = random(64, 64), Factors(spd(64, 1), spd(64, 2), spd(64, 3), tokens=8, sequences=2)
    plan = LayerPlan("layer", format, (64, 64), "layer", True, "layer")
    with torch.device("meta"):
        result = solve_layer(plan, w, rounding, factors, Hadamard(output="block64"))
        dense = result.weight.dense()
        rows = format.unpack_rows(result.weight, torch.tensor([3, 5], device=CPU))
    for tensor in (dense, rows, *result.tensors().values()):
        assert tensor.device == CPU
    assert result.record["error_plain"] < 1


def test_curvature_stays_on_the_device_of_its_inputs() -> None:
    with torch.device("meta"):
        sums = Sums()
        sums.add("gram/a", random(5, 8), random(5, 8))
        h, damping = damp(normalise(spd(8, 1), "a"), 0.01, "a")
        loss = expected_loss(
            random(2, 3, 8),
            random(2, 3, 4),
            random(4).abs(),
            spd(8, 2).tril(-1),
            spd(4, 3).tril(-1),
        )
    assert sums.symmetric("gram/a").device == h.device == loss.device == CPU
    assert damping == 0.01


def test_rotations_stay_on_the_device_of_their_inputs() -> None:
    with torch.device("meta"):
        s = signs(0, "key", 80, CPU)
        x = rotate(random(3, 80), unpack_signs(pack_signs(s), 80), "block64")
        back = rotate(x, s, "block64", inverse=True)
    torch.testing.assert_close(back, random(3, 80), rtol=0, atol=1e-5)
