"""The warm start learns traces, and word tokenizers read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_policy
import torch
from transformers import AutoTokenizer

from featherweight.base.errors import BadInput, UsageError
from featherweight.data.small_tokenizers import word_tokenizer
from featherweight.data.tasks import OpChain
from featherweight.data.tasks.op_chain import WORDS
from featherweight.reasoning.warm_start import trace_examples, warm_start


def test_traces_are_learned() -> None:
    words, chains = word_tokenizer(WORDS), OpChain(count=8, longest=2)
    examples = list(chains.examples("train"))
    texts = trace_examples(
        examples,
        lambda one: words.encode(chains.prompt(one)),
        lambda one: words.encode(chains.trace(one, 0)),
        0,
    )
    first = words.encode(chains.prompt(examples[0]))
    assert texts[0].ids[: len(first)].tolist() == first and int(texts[0].ids[-1]) == 0
    assert texts[0].loss_mask.tolist() == [i >= len(first) for i in range(len(texts[0].ids))]
    model = tiny_policy.policy()
    losses = [step.loss for step in warm_start(model, texts, num_steps=20, batch=4, lr=2e-2)]
    assert len(losses) == 20 and losses[-1] < losses[0] - 0.5


def test_empty_parts_are_refused() -> None:
    for prompt, trace, name in (([1], [], "trace"), ([], [1], "prompt")):
        with pytest.raises(BadInput, match=f"the {name} of example 0 is empty"):
            trace_examples([{}], lambda one, ids=prompt: ids, lambda one, ids=trace: ids, 0)


def test_a_token_a_word(tmp_path: Path) -> None:
    words = word_tokenizer(WORDS)
    text = "7 a b : #1 4 #10 0 W END 0"
    ids = words.encode(text)
    assert len(words) == tiny_policy.VOCABULARY and len(ids) == len(text.split())
    assert words.decode(ids) == text and words.eos_token_id == 0
    assert words.encode("a nobody b") == [words.encode("a")[0], 1, words.encode("b")[0]]
    words.save_pretrained(tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path)
    assert other.encode(text) == ids and other.decode(ids) == text
    assert torch.tensor(ids).unique().numel() == len(set(text.split()))
    with pytest.raises(UsageError, match="twice"):
        word_tokenizer(["a", "a"])
    for broken in ("a b", "", " a"):
        with pytest.raises(UsageError, match="is no word"):
            word_tokenizer([broken])
