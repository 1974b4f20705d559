"""Trains a small policy on one process and on two gloo processes, and writes what came of it:
`python tests/reasoning/policy_two_ranks.py FOLDER`.

Four micro-batches make a generation of two steps; each rank samples its own. The processes get the
variables of torchrun. They are forks of this one, which has imported torch and computed nothing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import tiny_policy
import torch
import torch._dynamo  # optimizers import it, which would take seconds in every fork
from forked_ranks import run_ranks
from safetensors.torch import save_file

from featherweight.reasoning.governor import Governor
from featherweight.reasoning.loop import train
from featherweight.reasoning.short_arc import ShortARC
from featherweight.training import process_group, ranks

MICRO_BATCHES = 2  # of a step, on all ranks
CONTROL = ShortARC(
    governor=Governor(warmup=1, ramp=2, tolerance=0.2), gate="off", floor=1, batch_std=True
)
RECIPE = replace(tiny_policy.RECIPE, steps=4, prompts=2, updates=2, lr=3e-3)


def run(folder: Path, name: str) -> None:
    """The run of one process."""
    torch.set_num_threads(1)
    with process_group():
        # In float64 no sample depends on the order of a sum.
        model = tiny_policy.policy().double()
        rows = [
            [step.step.loss, step.step.gradient_norm, *dict(sorted(figures(step).items())).values()]
            for step in train(
                model,
                tiny_policy.questions(),
                tiny_policy.sampler(model),
                tiny_policy.marking(),
                CONTROL,
                tiny_policy.method(),
                replace(RECIPE, accumulate=MICRO_BATCHES // ranks.num_ranks()),
            )
        ]
        if ranks.rank() == 0:
            (folder / f"{name}.json").write_text(json.dumps(rows))
        save_file(
            {key: tensor.clone() for key, tensor in model.model.state_dict().items()},
            folder / f"{name}-{ranks.rank()}.safetensors",
        )


def figures(step: object) -> dict[str, float]:
    """Those of the answers, without times."""
    content: dict[str, float] = step.figures  # type: ignore[attr-defined]
    return {key: number for key, number in content.items() if "seconds" not in key}


if __name__ == "__main__":
    run_ranks(partial(run, Path(sys.argv[1]), "one"), 1)
    run_ranks(partial(run, Path(sys.argv[1]), "two"), 2)
