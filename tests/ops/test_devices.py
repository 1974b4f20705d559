"""Every tensor that an operation makes lies on the device of its input, whatever the default device
is.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.ops.tables import gaussian
from torch import Tensor

from featherweight.ops import hadamard, lanes, matmul, trellis

STREAMS = torch.arange(4 * 4 * 64, dtype=torch.int64).remainder(256).to(torch.uint8).view(4, 4, 64)
CODES = torch.arange(16 * 32, dtype=torch.int64).remainder(16).to(torch.uint8).view(16, 32)
SAMPLES = torch.linspace(-3, 3, 32).view(2, 16)
VALUES = gaussian(8)
OPERATIONS: dict[str, Callable[[], Tensor]] = {
    "trellis.encode": lambda: trellis.encode(SAMPLES, VALUES, 8, 2, isa="reference"),
    "trellis.decode": lambda: trellis.decode(STREAMS[0], VALUES, 8, 2, isa="reference"),
    "trellis.encode, native": lambda: trellis.encode(SAMPLES, VALUES, 8, 2),
    "trellis.decode, native": lambda: trellis.decode(STREAMS[0], VALUES, 8, 2),
    "hadamard.transform": lambda: hadamard.transform(torch.cat([SAMPLES] * 3, 1)[:, :42]),
    "hadamard.transform, reference": lambda: hadamard.transform(SAMPLES, isa="reference"),
    "lanes.trellis": lambda: lanes.lanes_to_trellis(lanes.trellis_to_lanes(STREAMS), 4, 4),
    "lanes.int": lambda: lanes.lanes_to_int(lanes.int_to_lanes(CODES, 5), 16, 32, 5),
    "matmul.trellis_dense": lambda: _trellis_dense("reference"),
    "matmul.trellis_dense, native": lambda: _trellis_dense(None),
    "matmul.int_dense": lambda: _int_dense("reference"),
    "matmul.int_dense, native": lambda: _int_dense(None),
}


def _trellis_dense(isa: str | None) -> Tensor:
    scale = SAMPLES.new_ones(64)
    return matmul.trellis_dense(STREAMS.flatten(), 64, 64, VALUES, 8, 2, scale, isa=isa)


def _int_dense(isa: str | None) -> Tensor:
    scale = SAMPLES.new_ones(1, 4, 16)
    return matmul.int_dense(CODES.flatten()[:256], 16, 32, 4, 8, scale, isa=isa)


@pytest.mark.parametrize("name", OPERATIONS)
def test_tensors_lie_on_the_device_of_the_input(name: str) -> None:
    """A tensor that is made on the default device would meet tensors of another device here."""
    reference = OPERATIONS[name]()
    with torch.device("meta"):
        result = OPERATIONS[name]()
    assert result.device.type == "cpu"
    assert torch.equal(result, reference)
