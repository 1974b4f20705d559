"""Two processes give the factors of one, to float32 rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from toy import Toy

import featherweight
from featherweight.quantization.curvature import FisherA, FisherB

SCRIPT = """
import sys
import torch, torch.distributed as dist
sys.path[:0] = sys.argv[2:]
from toy import Toy
from featherweight.quantization.curvature import FisherA, FisherB
from safetensors.torch import save_file
torch.set_num_threads(1)
dist.init_process_group("gloo")
tokens = torch.randint(0, 7, (7, 5), generator=torch.Generator().manual_seed(3))
flat = {}
for method in (FisherA(batch=2), FisherB(batch=2)):
    for n, f in method.collect(Toy(vocab=7, width=6), tokens).items():
        key = f"{type(method).__name__}/{n}"
        flat |= {f"{key}/{k}": getattr(f, k).contiguous()
                 for k in ("gram", "fisher_input", "output") if getattr(f, k) is not None}
        flat[f"{key}/scale"] = torch.tensor(f.scale)
if dist.get_rank() == 0:
    save_file(flat, sys.argv[1])
dist.destroy_process_group()
"""


def test_two_gloo_processes_give_ones_factors(tmp_path: Path) -> None:
    script = tmp_path / "collect.py"
    script.write_text(SCRIPT)
    source = str(Path(featherweight.__file__).parents[1])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--master-port=29671",
    ]
    subprocess.run(
        [
            *command,
            str(script),
            str(tmp_path / "two.safetensors"),
            str(Path(__file__).parents[2]),
            source,
        ],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source},
        timeout=120,
        capture_output=True,
    )
    tokens = torch.randint(0, 7, (7, 5), generator=torch.Generator().manual_seed(3))
    two = load_file(tmp_path / "two.safetensors")
    for method in (FisherA(batch=2), FisherB(batch=2)):
        for name, factors in method.collect(Toy(vocab=7, width=6), tokens).items():
            name = f"{type(method).__name__}/{name}"
            for key in (
                ("gram",) if name.endswith("lm_head") else ("gram", "fisher_input", "output")
            ):
                assert torch.allclose(
                    getattr(factors, key), two[f"{name}/{key}"], rtol=1e-5, atol=1e-7
                ), (name, key)
            assert torch.allclose(torch.tensor(factors.scale), two[f"{name}/scale"], rtol=1e-5)
