"""The start of reinforcement: a model that has learned to think at all, from written traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW

from ..base.errors import BadInput
from ..base.events import Listener, silent
from ..base.run_folder import RunFolder
from ..data.examples import Example, collate
from ..data.tasks import TaskExample
from ..training import Cosine, ShuffledBatches, Step, parameter_groups, steps
from ..training.losses import CrossEntropy, TokenLoss

STAGE = "warm_start"


def trace_examples(
    examples: Sequence[TaskExample],
    encode: Callable[[TaskExample], Sequence[int]],
    encode_trace: Callable[[TaskExample], Sequence[int]],
    end_id: int,
) -> list[Example]:
    """Prompt and trace of each example as one text, of which the trace and the end token are to be
    learned. Raises BadInput for a prompt or a trace without tokens.
    """
    texts = []
    for index, example in enumerate(examples):
        prompt, trace = list(encode(example)), list(encode_trace(example))
        if not prompt or not trace:
            part = "trace" if prompt else "prompt"
            raise BadInput(f"the {part} of example {index} is empty")
        ids = torch.tensor([*prompt, *trace, end_id])
        mask = torch.arange(len(ids)) >= len(prompt)
        texts.append(Example(ids, mask))
    return texts


def warm_start(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    num_steps: int,
    batch: int,
    lr: float,
    seed: int = 0,
    run: RunFolder | None = None,
    listener: Listener = silent,
) -> Iterator[Step]:
    """Train `model` on the traces by cross-entropy, and yield a `Step` after each step."""
    epochs = 1 + num_steps // max(len(examples) // batch, 1)
    batches: Any = ShuffledBatches(examples, batch, epochs, seed, collate)
    model.train()
    return steps(
        model,
        batches,
        TokenLoss(CrossEntropy()),
        AdamW(parameter_groups(model, weight_decay=0.01), lr=lr, betas=(0.9, 0.95)),
        Cosine(num_steps, min(50, num_steps // 10)),
        run,
        stage=STAGE,
        listener=listener,
    )
