"""Every test runs with the shapes in the signatures checked, few threads, and fixed seeds."""

from __future__ import annotations

import os
import random

import jaxtyping
import numpy as np
import pytest

# Before any import of featherweight: each of its modules is compiled with shape and type checks.
jaxtyping.install_import_hook("featherweight", "checking.checked")

# Workers that run side by side (pytest-xdist) get one thread each; two threads in each would wait
# for one another.
NUM_THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
# Read by the native library and by torch in subprocesses; tests never reach for the network.
os.environ.setdefault("OMP_NUM_THREADS", str(NUM_THREADS))
os.environ.setdefault("FEATHERWEIGHT_THREADS", str(NUM_THREADS))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(NUM_THREADS)
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, max_examples=60
)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - transformers draws from the global generator
    torch.manual_seed(0)
