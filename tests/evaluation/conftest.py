"""Two tiny models a little apart, and windows of random tokens."""

from __future__ import annotations

import copy

import pytest
import torch
from tests import tiny


@pytest.fixture(scope="session")
def original():
    return tiny.llama()[0]


@pytest.fixture(scope="session")
def light(original):
    """The original with noise on the matrices of its blocks, the second block's larger than the
    first's.
    """
    noisy = copy.deepcopy(original)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in noisy.named_parameters():
            if p.ndim == 2 and "layers" in name:
                size = 0.05 if ".0." in name else 0.2
                p.add_(torch.randn(p.shape, generator=generator) * p.std() * size)
    return noisy


@pytest.fixture(scope="session")
def windows():
    return torch.randint(3, 300, (5, 34), generator=torch.Generator().manual_seed(1))
