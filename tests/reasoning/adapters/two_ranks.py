"""`python tests/reasoning/adapters/two_ranks.py FOLDER reward|trl`: the adapters of TRL on two gloo
processes, in which groups lie across the border of both.

`reward`: `LengthReward` is called on one process and on two, and its rewards are written.
`trl`: a `ShortARCTrainer` takes a few steps; each process writes what it generated.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import toy_grading as toy
from forked_ranks import run_ranks

from featherweight.base.errors import UsageError
from featherweight.reasoning.adapters.trl import LengthReward
from featherweight.reasoning.adapters.trl.rows import Columns
from featherweight.reasoning.governor import Governor
from featherweight.reasoning.rewards import Accuracy, Sizes
from featherweight.reasoning.short_arc import ShortARC
from featherweight.training import process_group, ranks

GROUP, ROWS = 4, 12
LENGTHS = [2, 4, 6, 8, 3, 3, 9, 9, 5, 2, 2, 7]


def rewards(folder: Path, num_ranks: int) -> None:
    """Three steps, so that the second and the third depend on what the governor saw."""
    rule = ShortARC(form="scalar", floor=1, gate_low=0, governor=Governor(warmup=0, ramp=1))
    reward = LengthReward(rule, toy.equals_gold, toy.FORMAT, GROUP)
    share = ROWS // num_ranks  # 6 of two processes, not a multiple of 4
    with process_group():
        own = range(ranks.rank() * share, (ranks.rank() + 1) * share)
        rows: dict[str, Any] = {
            "prompts": ["abc"[row // GROUP] for row in own],
            "completions": ["yes" if row % 5 else "no" for row in own],
            "completion_ids": [toy.answer(LENGTHS[row]) for row in own],
            "gold": ["yes" for _ in own],
        }
        steps = [reward(**rows) for _ in range(3)]
        refusals = []
        for rule_alone in (Accuracy(), rule):
            alone = LengthReward(rule_alone, toy.equals_gold, toy.FORMAT, GROUP, gather="never")
            try:
                alone(**rows)
                refusals.append("")
            except UsageError as error:
                refusals.append(str(error))
        content = {"steps": steps, "refusals": refusals}
        (folder / f"reward_{num_ranks}_{ranks.rank()}.json").write_text(json.dumps(content))


def trainer(folder: Path, num_ranks: int) -> None:
    """Records of each process."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    import trl_runs as runs

    control = ShortARC(floor=1, gate_low=0, governor=Governor(warmup=0, ramp=2, tolerance=0.4))
    trainer = runs.AdvantageTrainer(
        **runs.arguments(
            toy.even_word_rewards,
            folder / "out",
            per_device_train_batch_size=ROWS // num_ranks,
            max_steps=4,
        ),
        control=control,
        answer_format=runs.FORMAT,
        columns=Columns(bucket="bucket"),
        sizes=Sizes(buckets=3),
    )
    trainer.train()
    rank = trainer.accelerator.process_index
    assert trainer.accelerator.num_processes == num_ranks
    torch.save(
        {"records": trainer.records, "state": trainer.control_state.tensors()},
        folder / f"trl_{rank}.pt",
    )


def main(folder: Path, case: str) -> None:
    """See above."""
    if case == "reward":
        run_ranks(partial(rewards, folder, 1), 1)
        run_ranks(partial(rewards, folder, 2), 2)
    else:
        run_ranks(partial(trainer, folder, 2), 2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
