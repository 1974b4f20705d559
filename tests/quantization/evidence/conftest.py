"""A whole results.json, fresh for each test."""

from __future__ import annotations

import pytest
from tests.quantization.evidence.sample import results


@pytest.fixture
def sample():
    return results()
