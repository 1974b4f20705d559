"""Train a model with TRL (extra `trl`) so that it thinks only as long as a question needs:
python examples/shorter_thoughts_trl.py MODEL OUT
"""

from __future__ import annotations

import sys
from typing import Any

import featherweight as fw
from featherweight.data.tasks.op_chain import END, OpChain
from featherweight.reasoning.adapters.answers import AnswerFormat
from featherweight.reasoning.short_arc import ShortARC

TASK = OpChain(count=256)


def correctness(completions: list[str], start: list[int], operations: list[str], **_: Any) -> Any:
    examples = [{"start": s, "operations": o} for s, o in zip(start, operations, strict=True)]
    return [TASK.grade(e, text) for e, text in zip(examples, completions, strict=True)]


def main(name: str, out: str = "out/shorter", num_steps: int = 100, limit: int = 128) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig

    from featherweight.reasoning.adapters.trl import ShortARCTrainer

    model, tokenizer = fw.load(name)
    marker = tuple(tokenizer(END, add_special_tokens=False)["input_ids"])
    args = dict(max_steps=num_steps, max_completion_length=limit, num_generations=8)
    args |= dict(scale_rewards="none", loss_type="dr_grpo", report_to=[], bf16=False)
    rows = Dataset.from_list([{"prompt": TASK.prompt(e), **e} for e in TASK.examples("train")])
    arc = dict(control=ShortARC(), answer_format=AnswerFormat(marker, (tokenizer.eos_token_id,), limit))
    trainer = ShortARCTrainer(model.float(), correctness, GRPOConfig(out, **args), rows,
                              processing_class=tokenizer, **arc)
    trainer.train()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:3])
