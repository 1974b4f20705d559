"""OpenRLHF's reward function, on texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from featherweight.base.errors import UsageError
from featherweight.data.small_tokenizers import END, word_tokenizer
from featherweight.reasoning.adapters.answers import AnswerFormat
from featherweight.reasoning.adapters.openrlhf import RewardFunction
from featherweight.reasoning.rewards import Kimi, Linear
from featherweight.reasoning.short_arc import ShortARC

TOKENIZER: Any = word_tokenizer(["a", "b", "x", "STOP", "yes", "no"])
FORMAT = AnswerFormat((TOKENIZER.convert_tokens_to_ids("STOP"),), (0,), 12)
FIXED = ShortARC(form="scalar", floor=1, governor=None, fixed_pressure=0.3)
PROMPTS = ["a ", "b ", "a ", "b ", "a ", "b "]  # groups may be interleaved
ANSWERS = ["x STOP yes", "x STOP no", "x x x STOP yes", "x x STOP yes", "STOP yes", "x STOP yes"]
QUERIES = [f"{prompt}{answer} {END}" for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
LABELS = ["yes"] * 6


def grade(example: Mapping[str, Any], text: str) -> float | None:
    return None if example["label"] is None else float(text.split()[-1] == example["label"])


def test_single_rule_takes_one_answer() -> None:
    function = RewardFunction(Linear(0.01), grade, TOKENIZER, FORMAT)
    for query, prompt, length in zip(QUERIES, PROMPTS, (2, 2, 4, 3, 1, 2), strict=True):
        output = function([query], [prompt], ["yes"])
        right = "yes" in query
        torch.testing.assert_close(output["rewards"], torch.tensor([right - 0.01 * length]))
        assert output["extra_logs"]["length"].tolist() == [length]


def test_groups_by_prompt() -> None:
    function = RewardFunction(FIXED, grade, TOKENIZER, FORMAT, group=3)
    output = function(QUERIES, PROMPTS, LABELS)
    order = [0, 2, 4, 1, 3, 5]
    sorted_output = RewardFunction(FIXED, grade, TOKENIZER, FORMAT, group=3)(
        [QUERIES[i] for i in order], [PROMPTS[i] for i in order], LABELS
    )
    torch.testing.assert_close(output["rewards"][order], sorted_output["rewards"])
    assert output["scores"].tolist() == [1, 0, 1, 1, 1, 1]
    assert output["rewards"][1] == 0
    assert output["rewards"][2] < 1


def test_ungraded_and_cut() -> None:
    function = RewardFunction(FIXED, grade, TOKENIZER, FORMAT, group=3)
    cut = [QUERIES[0].removesuffix(f" {END}"), *QUERIES[1:]]
    output = function(cut, PROMPTS, ["yes", None, *LABELS[2:]])
    assert output["extra_logs"]["cut"].tolist() == [1, 0, 0, 0, 0, 0]
    assert output["extra_logs"]["ungraded"].tolist() == [0, 1, 0, 0, 0, 0]
    assert output["rewards"][:2].tolist() == [0, 0]


def test_traps_are_refused() -> None:
    with pytest.raises(UsageError, match="Kimi compares the answers.*always 1.*Linear"):
        RewardFunction(Kimi(), grade, TOKENIZER, FORMAT)
    function = RewardFunction(Kimi(), grade, TOKENIZER, FORMAT, group=3)
    with pytest.raises(UsageError, match="2 answers to 'b ', not group=3"):
        function(QUERIES[:5], PROMPTS[:5], LABELS[:5])
    with pytest.raises(UsageError, match="not with its prompt"):
        function(QUERIES, PROMPTS[1:] + PROMPTS[:1], LABELS)
