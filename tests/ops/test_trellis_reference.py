"""The reference does what its docstring says: bits are read one by one, every state has a cost,
time is reversed, and paths are closed.
"""

from __future__ import annotations

import pytest
import torch
from tests.ops.float_viterbi import encode_float
from tests.ops.tables import g_code, gaussian, hostile_tables, hostile_tiles, one_mad
from torch import Tensor

from featherweight.ops import trellis
from featherweight.ops.trellis import reference


def bits_of(stream: Tensor) -> list[int]:
    return [int(byte) >> i & 1 for byte in stream for i in range(8)]


def plain_encode(x: Tensor, values: Tensor, L: int, k: int) -> list[int]:
    """States in decoder order for one tile, in Python integers, one cost a state: the docstring,
    line by line.
    """
    scale = reference.SCALE[k]
    samples = [int(v) for v in (x.clamp(-4, 4) * scale).round().flip(0)]
    table = [max(-32767, min(32767, int(v))) for v in (values * scale).round()]
    groups, length = 1 << (L - k), len(samples)

    def error(sample: int, state: int) -> int:
        d = max(-32768, min(32767, sample - table[state]))
        return (d * d + (1 << 14)) >> 15

    def walk(sequence: list[int], row: list[int]) -> list[list[int]]:
        costs = []
        for sample in sequence:
            costs.append([min(65535, row[s >> k] + error(sample, s)) for s in range(1 << L)])
            low = min(row)
            row = [
                min(costs[-1][g + j * groups] for j in range(1 << k)) - low for g in range(groups)
            ]
        return costs

    def back(costs: list[int], group: int) -> int:
        return min((costs[group + j * groups], group + j * groups) for j in range(1 << k))[1]

    half = length // 2
    costs = walk(samples[half:] + samples[:half], [0] * groups)
    state = min((cost, s) for s, cost in enumerate(costs[-1]))[1]
    for i in range(length - 2, half - 1, -1):
        state = back(costs[i], state >> k)
    overlap = state >> k
    costs = walk(samples, [0 if g == overlap else 65535 for g in range(groups)])
    path, group = [], overlap
    for i in range(length - 1, -1, -1):
        state = back(costs[i], group)
        num_overlap_bits = L - k * (i + 1)
        if num_overlap_bits > 0:
            num_free_bits = L - num_overlap_bits
            overlap_bits = overlap % (1 << num_overlap_bits)
            state = state % (1 << num_free_bits) | overlap_bits << num_free_bits
        path.append(state)
        group = state >> k
    return path


@pytest.mark.parametrize(
    ("L", "k", "T"),
    [(8, 1, 8), (8, 1, 24), (8, 2, 16), (8, 3, 8), (8, 4, 8), (9, 2, 24), (10, 3, 8)],
)
def test_equals_its_plain_twin(L: int, k: int, T: int) -> None:
    tables = {"gauss": gaussian(L), "1mad": one_mad(L), **hostile_tables(L)}
    tiles = torch.cat([torch.randn(2, T), hostile_tiles(T)[:10:3]])
    for name, values in tables.items():
        tile_states = reference.states(reference.encode(tiles, values, L, k), L, k)
        for tile, states in zip(tiles, tile_states, strict=True):
            assert states.tolist() == plain_encode(tile, values, L, k), name


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize(("L", "T"), [(8, 8), (11, 16), (16, 16), (16, 24)])
def test_state_is_a_window_of_the_stream(k: int, L: int, T: int) -> None:
    streams = torch.randint(0, 256, (3, k * T // 8), dtype=torch.uint8)
    states = reference.states(streams, L, k)
    for stream, row in zip(streams, states, strict=True):
        bits = bits_of(stream)
        for t, state in enumerate(row.tolist()):
            assert state == sum(bits[(k * t + i) % (k * T)] << i for i in range(L))
    assert torch.equal(reference.pack(states, k), streams)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_time_is_reversed(k: int) -> None:
    """The state of the index before is shifted and gets k new lowest bits, across the seam too."""
    L, T = 10, 16
    states = reference.states(torch.randint(0, 256, (5, k * T // 8), dtype=torch.uint8), L, k)
    previous_states = states.roll(1, 1)
    assert torch.equal(previous_states >> k, states & ((1 << (L - k)) - 1))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize(("L", "T"), [(8, 8), (8, 40), (11, 16)])
def test_every_path_is_closed(k: int, L: int, T: int) -> None:
    """A stream holds k bits of each state: decoding gives the states of the search only if all of
    them overlap as a path does.
    """
    for values in [gaussian(L), *hostile_tables(L).values()]:
        scale = reference.SCALE[k]
        samples = (hostile_tiles(T).clamp(-4, 4) * scale).round().to(torch.int32).flip(1)
        table = (values * scale).round().clamp(-32767, 32767).to(torch.int32)
        states = reference._states(samples, table, L, k).flip(1)
        assert torch.equal(reference.states(reference.pack(states, k), L, k), states)


def test_infinity_survives_renormalisation() -> None:
    """Every step subtracts from all costs. States outside the overlap must not win, even when all
    reachable states have a large cost.
    """
    L, k, T = 12, 1, 64
    x = torch.full((1, T), 4.0)
    values = torch.full((1 << L,), -4.0)
    values[: 1 << 6] = 3.9  # cheap states that a path from a far overlap reaches late
    states = reference.states(reference.encode(x, values, L, k), L, k)
    assert torch.equal(states.roll(1, 1) >> k, states & ((1 << (L - k)) - 1))
    error = (x - values[states]).square().mean()
    assert error <= (x - encode_float(x, values, L, k)).square().mean() * 1.01


@pytest.mark.parametrize(
    ("k", "code"), [(1, "1mad"), (2, "g"), (2, "gauss"), (3, "1mad"), (4, "gauss")]
)
def test_viterbi_scale_by_rate(k: int, code: str) -> None:
    """16 bits are enough: at most 0.3 % more error than float32 on the same samples."""
    L = 12 if code == "g" else 10
    values = {"1mad": one_mad, "g": g_code, "gauss": gaussian}[code](L)
    x = torch.randn(8 if code == "g" else 24, 256).clamp(-4, 4)
    error = (x - trellis.decode(trellis.encode(x, values, L, k), values, L, k)).square().mean()
    textbook = (x - encode_float(x, values, L, k)).square().mean()
    assert float(error / textbook) == pytest.approx(1.0, abs=0.003)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_hostile_tiles_cost_little_more_than_in_float(k: int) -> None:
    L, T = 8, 64
    x = hostile_tiles(T).clamp(-4, 4)
    for values in (gaussian(L), one_mad(L)):
        error = (x - trellis.decode(trellis.encode(x, values, L, k), values, L, k)).square().mean(1)
        textbook = (x - encode_float(x, values, L, k)).square().mean(1)
        assert (error <= textbook * 1.05).all()
