"""A reward function for OpenRLHF, `--reward.remote_url examples/shorter_thoughts_openrlhf.py`, with
`--data.label_key` the column of the right answers and FW_MODEL the folder of the tokenizer.

Answers come one by one, so the rule is one that needs no group: it punishes the last fifth of the
limit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from transformers import AutoTokenizer

from featherweight.reasoning.adapters.answers import AnswerFormat
from featherweight.reasoning.adapters.openrlhf import RewardFunction
from featherweight.reasoning.rewards import DAPOOverlong

LIMIT = 4096


def grade(example: Mapping[str, Any], text: str) -> float:
    return float(text.rpartition("</think>")[2].strip() == str(example["label"]).strip())


tokenizer = AutoTokenizer.from_pretrained(os.environ["FW_MODEL"])
think_end = tuple(tokenizer("</think>", add_special_tokens=False)["input_ids"])
answer_format = AnswerFormat(think_end, (tokenizer.eos_token_id,), LIMIT)
reward_func = RewardFunction(DAPOOverlong(), grade, tokenizer, answer_format)
