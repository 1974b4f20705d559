"""Trains small models on one process and on two gloo processes, and writes what came of it:
`python tests/training/two_ranks.py FOLDER`.

Cases: `replicated` (a vision-like model, gradients summed by the loop), `sharded` (a language model
under FSDP2, with Muon, AdamW, an average and a teacher; also interrupted and resumed),
`across_tokenizers` (a student that learns from a teacher of another tokenizer). The processes get
the variables of torchrun. They are forks of this one, which has imported torch and computed
nothing.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import tokenizer_pairs as pairs
import torch
import torch._dynamo  # optimizers import it, which would take seconds in every fork
import torch.distributed.fsdp
import torch.distributed.tensor
from forked_ranks import run_ranks
from torch import Tensor, nn
from torch.optim import AdamW
from toy import Toy

from featherweight.distillation import (
    AlignedBatches,
    CrossTokenizerLoss,
    aligned_windows,
    match_tokenizers,
)
from featherweight.training import (
    EMA,
    Cosine,
    Loss,
    Muon,
    open_run,
    parameter_groups,
    process_group,
    ranks,
    shard,
    split,
    steps,
)
from featherweight.training.losses import CrossEntropy, ForwardKL, TokenLoss

STEPS, MICRO_BATCHES = 6, 4


def square_loss(model: nn.Module, batch: Tensor) -> Loss:
    return Loss((model(batch) - batch.sum(-1, keepdim=True)).square().sum(), len(batch))


def replicated() -> tuple[nn.Module, list[Any], Any, list[Any], list[nn.Module]]:
    """Micro-batches of unequal sizes, so that a mean of means would differ."""
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    generator = torch.Generator().manual_seed(1)
    sizes = [1, 6, 3, 2] * STEPS
    batches: list[Any] = [torch.randn(size, 3, generator=generator) for size in sizes]
    groups = parameter_groups(model, weight_decay=0.1)
    return model, batches, square_loss, [AdamW(groups, lr=1e-2)], []


def sharded() -> tuple[nn.Module, list[Any], Any, list[Any], list[nn.Module]]:
    """Masks of unequal sizes; widths that two ranks cannot divide evenly."""
    model, teacher = Toy(vocab=11, width=6), Toy(vocab=11, width=10, seed=1)
    model.lm_head.weight = model.embed.weight  # tied
    generator = torch.Generator().manual_seed(1)
    batches: list[Any] = []
    for index in range(STEPS * MICRO_BATCHES):
        ids = torch.randint(0, 11, (2, 8), generator=generator)
        batches.append({"input_ids": ids, "loss_mask": ids > index % 4 * 2})
    if ranks.num_ranks() > 1:
        shard(model, model.layers)
    loss = TokenLoss(CrossEntropy(), ForwardKL(temperature=2.0), teacher=teacher)
    matrices, others = split(model, is_first=lambda name, p: "layers" in name and p.ndim == 2)
    optimizers = [Muon(matrices, lr=0.02, weight_decay=0.1), AdamW(others, lr=1e-2)]
    return model, batches, loss, optimizers, [teacher]


def across_tokenizers() -> tuple[nn.Module, Any, Any, list[Any], list[nn.Module]]:
    """Texts of one word to fifty tokens, so that the ranks hold unequal numbers of groups."""
    match = match_tokenizers(pairs.coarse(), pairs.fine())
    texts = aligned_windows(match, [pairs.TEXT, pairs.PLAY, "feather", "the theatre"], 120)
    teacher, model = pairs.model(pairs.coarse(), 1), pairs.model(pairs.fine(), 2).train()
    loss = CrossTokenizerLoss(teacher, match, uld=0.7, cross_entropy=0.2)
    batches = AlignedBatches(texts, 1, epochs=STEPS * MICRO_BATCHES // len(texts), seed=1)
    return model, batches, loss, [AdamW(model.parameters(), lr=1e-2)], [teacher]


CASES = {"replicated": replicated, "sharded": sharded, "across_tokenizers": across_tokenizers}


def train(folder: Path, case: str, stop: int = STEPS) -> None:
    """The run of one process."""
    torch.set_num_threads(1)
    with process_group():
        torch.manual_seed(0)
        model, batches, loss, optimizers, _ = CASES[case]()
        rows = []
        with open_run(folder, {"case": case}) as run:
            for step in steps(
                model,
                batches,
                loss,
                optimizers,
                Cosine(STEPS, 2),
                run,
                accumulate=MICRO_BATCHES // ranks.num_ranks(),
                average=EMA(model, 0.9),
                save_every=2,
                clip=0.5,
                bf16=False,
            ):
                rows.append([step.number, step.loss, step.gradient_norm, step.units_seen])
                if step.number == stop:
                    break
        if ranks.rank() == 0:
            (folder.parent / f"{folder.name}.json").write_text(json.dumps(rows))


def main(folder: Path) -> None:
    """See above."""
    for case in CASES:
        run_ranks(partial(train, folder / f"{case}_one", case), 1)
        run_ranks(partial(train, folder / f"{case}_two", case), 2)
    run_ranks(partial(train, folder / "resumed", "sharded", stop=3), 2)
    run_ranks(partial(train, folder / "resumed", "sharded"), 2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
