"""Codes and tiles for the tests of the trellis: a code is just a table of 2^L numbers."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

MATRICES = {12: (0xB2, 0xE7, 0x82, 0x11), 14: (0x29, 0x66, 0x9D, 0x09, 0x93, 0x11)}


def one_mad(L: int) -> Tensor:
    """1MAD (QTIP, arXiv:2406.11235): the sum of the four bytes of a linear congruence."""
    x = (34038481 * torch.arange(1 << L) + 76625530) & 0xFFFFFFFF
    return ((sum((x >> shift) & 255 for shift in (0, 8, 16, 24)) - 510) / 147.800537).float()


def g_code(L: int) -> Tensor:
    """The GF(2)-linear code with the matrices for 2 bits."""
    quantiles = torch.tensor(
        [NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], dtype=torch.float64
    )
    quantiles = quantiles / quantiles.square().mean().sqrt()
    state = torch.arange(1 << L)
    h = state & 255
    for i, column in enumerate(MATRICES[L]):
        h = h ^ ((state >> (8 + i) & 1) * column)
    reversed_bits = sum(((h >> i) & 1) << (7 - i) for i in range(8))
    return quantiles[reversed_bits].float()


def gaussian(L: int, seed: int = 0) -> Tensor:
    return torch.randn(1 << L, generator=torch.Generator().manual_seed(seed))


def hostile_tables(L: int) -> dict[str, Tensor]:
    return {
        "equal": torch.full((1 << L,), 0.5),
        "zero": torch.zeros(1 << L),
        "huge": torch.linspace(-40, 40, 1 << L),
        "two values": torch.where(torch.arange(1 << L) % 2 == 0, -3.0, 3.0),
    }


def hostile_tiles(T: int) -> Tensor:
    """Rows that cause saturation and ties: constants, extremes, runs, single spikes, and numbers
    outside the clip range.
    """
    t = torch.arange(T)
    spike = torch.zeros(T)
    spike[T // 2] = 4.0
    edge = torch.zeros(T)
    edge[0] = -4.0
    rows = [
        torch.full((T,), 4.0),
        torch.full((T,), -4.0),
        torch.where(t % 2 == 0, 4.0, -4.0),
        torch.where(t < T // 2, 4.0, -4.0),
        torch.where(t % 8 == 0, 4.0, -4.0),
        torch.zeros(T),
        torch.full((T,), 1e30),
        torch.full((T,), 1e-30),
        spike,
        edge,
        torch.where(torch.rand(T, generator=torch.Generator().manual_seed(3)) < 0.5, 4.0, -4.0),
    ]
    return torch.stack(rows)
