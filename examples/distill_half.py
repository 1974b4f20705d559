"""Remove every second block of a model and let the whole model teach the rest; a run that is killed
continues when it is started again.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

from torch.optim import AdamW

import featherweight as fw
from featherweight.training import Cosine, ShuffledBatches, open_run, parameter_groups, steps
from featherweight.training.losses import ForwardKL, TokenLoss


def main(
    model_name: str = "SmolLM2-135M-Instruct", out: str = "out/half", num_steps: int = 200
) -> list[float]:
    model, tokenizer = fw.load(model_name)
    student: Any = copy.deepcopy(model).float()
    student.model.layers = student.model.layers[::2]
    tokens = fw.data.calibration(tokenizer, count=64, length=128).tokens
    batches = ShuffledBatches(tokens, size=4, epochs=1 + num_steps // 16)
    loss = TokenLoss(ForwardKL(), teacher=model)
    optimizer = AdamW(parameter_groups(student, weight_decay=0.01), lr=3e-4)
    losses = []
    with open_run(out, {"model": model_name, "blocks": "every second"}) as run:
        for step in steps(student, batches, loss, optimizer, Cosine(num_steps, 10), run):
            losses.append(step.loss)
            print(f"{step.number}: KL {step.loss:.3f} nats, {step.units_per_second:.0f} tokens/s")
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:3])
