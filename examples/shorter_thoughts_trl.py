"""Train a model with TRL (extra `trl`) so that it thinks only as long as a question needs.
`python examples/shorter_thoughts_trl.py MODEL OUT` trains it on chains of operations.
"""

from __future__ import annotations

import sys
from typing import Any

import featherweight as fw
from featherweight.data.tasks.op_chain import END, OpChain
from featherweight.reasoning.adapters.answers import AnswerFormat
from featherweight.reasoning.adapters.trl import LengthReward, checkpoint_callback
from featherweight.reasoning.short_arc import ShortARC


def main(name: str, out: str = "out/shorter", num_steps: int = 100, limit: int = 128) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model, tokenizer = fw.load(name)
    task = OpChain(count=256)
    rows = [{"prompt": task.prompt(e), **e} for e in task.examples("train")]
    marker = tuple(tokenizer(END, add_special_tokens=False)["input_ids"])
    answers = AnswerFormat(marker, (tokenizer.eos_token_id,), limit)
    reward = LengthReward(ShortARC(form="scalar"), task.grade, answers, num_generations=8)
    args = {"max_steps": num_steps, "max_completion_length": limit, "num_generations": 8}
    args |= {"scale_rewards": "none", "loss_type": "dr_grpo", "report_to": [], "bf16": False}
    trainer = GRPOTrainer(
        model.float(), reward, GRPOConfig(out, **args), Dataset.from_list(rows), None, tokenizer
    )
    trainer.add_callback(checkpoint_callback(reward))
    trainer.train()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:3])
