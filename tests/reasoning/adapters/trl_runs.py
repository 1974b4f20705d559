"""A tiny GRPOTrainer on the op-chain task, whose generations are recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import torch
from trl import GRPOConfig, GRPOTrainer

from featherweight.data.small_tokenizers import word_tokenizer
from featherweight.data.tasks.op_chain import END, WORDS, OpChain
from featherweight.models.scratch import scratch_model
from featherweight.reasoning.adapters.answers import AnswerFormat
from featherweight.reasoning.adapters.trl import ShortARCTrainer

TASK = OpChain(count=16, longest=3)
LIMIT, GROUP, STEPS = 16, 4, 10
TOKENIZER: Any = word_tokenizer(WORDS)
FORMAT = AnswerFormat((TOKENIZER.convert_tokens_to_ids(END),), (TOKENIZER.eos_token_id,), LIMIT)


def decode(ids: Any) -> str:
    """As TRL does it."""
    text: str = TOKENIZER.decode(ids, skip_special_tokens=True)
    return text


def dataset() -> Any:
    """Prompts, with what grades their answers, and a bucket of difficulty."""
    return datasets.Dataset.from_list(
        [
            {"prompt": TASK.prompt(example), **example, "bucket": len(example["operations"]) - 1}
            for example in TASK.examples("train")
        ]
    )


def settings(folder: Path, **changes: Any) -> Any:
    return GRPOConfig(
        **{
            "output_dir": str(folder),
            "max_steps": STEPS,
            "per_device_train_batch_size": 2 * GROUP,
            "num_generations": GROUP,
            "max_completion_length": LIMIT,
            "scale_rewards": "none",
            "loss_type": "dr_grpo",
            "learning_rate": 1e-3,
            "use_cpu": True,
            "bf16": False,
            "report_to": [],
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
        }
        | changes
    )


def arguments(reward: Any, folder: Path, **changes: Any) -> dict[str, Any]:
    """Of a trainer."""
    model = scratch_model(len(TOKENIZER), width=32, blocks=1, end_id=TOKENIZER.eos_token_id)
    return {
        "model": model,
        "reward_funcs": reward,
        "args": settings(folder, **changes),
        "train_dataset": dataset(),
        "processing_class": TOKENIZER,
    }


class Recorder:
    """Keeps rows, answers and advantages of each generation; put before a trainer."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        masks = output["completion_mask"].bool()
        ids = [
            row[mask].tolist() for row, mask in zip(output["completion_ids"], masks, strict=True)
        ]
        vars(self).setdefault("records", []).append((inputs, ids, output["advantages"].clone()))
        return output


class RewardTrainer(Recorder, GRPOTrainer):
    pass


class AdvantageTrainer(Recorder, ShortARCTrainer):
    pass


def weights(model: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
