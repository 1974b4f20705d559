"""Windows are cut as the reference evaluation cuts them, and documents have one BOS where the
tokenizer adds one.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tokenizers.processors import TemplateProcessing

from featherweight.base.errors import BadInput, UsageError
from featherweight.data import tokens
from featherweight.data.corpora import Dialogue, text


def with_bos() -> Any:
    """The tiny tokenizer with <|im_start|> before every text, as Llama's has its BOS."""
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", pair=None, special_tokens=[("<|im_start|>", 1)]
    )
    return tokenizer


def test_windows_are_those_of_the_reference_evaluation() -> None:
    tokenizer, content, length, count = tiny.tokenizer(), text("humaneval")[:40_000], 64, 9
    ids = tokenizer(content, return_tensors="pt", add_special_tokens=False).input_ids[0]
    reference = [ids[i * length : (i + 1) * length + 1] for i in range(count)]
    assert torch.equal(tokens.windows(tokenizer, content, length, count), torch.stack(reference))


def test_every_window_starts_with_the_bos_that_the_tokenizer_adds() -> None:
    plain = tokens.windows(tiny.tokenizer(), tiny.TEXT, 16, 3)
    with_first = tokens.windows(with_bos(), tiny.TEXT, 16, 3)
    assert with_first[:, 0].tolist() == [1, 1, 1]
    assert torch.equal(with_first[:, 1:], plain[:, 1:])
    assert torch.equal(tokens.windows(with_bos(), tiny.TEXT, 16, 3, bos="no"), plain)
    assert torch.equal(tokens.windows(with_bos(), tiny.TEXT, 16, 3, bos="yes"), with_first)
    assert torch.equal(tokens.windows(tiny.tokenizer(), tiny.TEXT, 16, 3, bos="auto"), plain)


def test_the_first_tokens_of_windows() -> None:
    tokenizer = tiny.tokenizer()
    assert tokens.first_tokens(tokenizer, "auto") == []
    assert tokens.first_tokens(tokenizer, "yes") == [tokenizer.bos_token_id]
    tokenizer.bos_token = None
    assert tokens.first_tokens(tokenizer, "auto") == []
    with pytest.raises(UsageError, match="no BOS token"):
        tokens.windows(tokenizer, tiny.TEXT, 16, 2, bos="yes")
    with pytest.raises(UsageError, match="choose auto, yes, no"):
        tokens.windows(tokenizer, tiny.TEXT, 16, 2, bos="maybe")


def test_windows_use_the_last_target() -> None:
    tokenizer = tiny.tokenizer()
    num_tokens = len(tokens.encode(tokenizer, tiny.TEXT))
    assert tokens.windows(tokenizer, tiny.TEXT, num_tokens - 1, 1).shape == (1, num_tokens)
    with pytest.raises(
        BadInput, match=rf"{num_tokens} tokens, which is 0 windows of {num_tokens} tokens and not 1"
    ):
        tokens.windows(tokenizer, tiny.TEXT, num_tokens, 1)


def test_too_short_a_text_says_how_short() -> None:
    with pytest.raises(BadInput, match="the evaluation text has 0 tokens, which is 0 windows"):
        tokens.windows(tiny.tokenizer(), "", 16, 1)


def test_prefix_is_what_the_tokenizer_adds() -> None:
    assert tokens.prefix(tiny.tokenizer()) == []
    assert tokens.prefix(with_bos()) == [1]


def test_dialogues_go_through_the_template() -> None:
    tokenizer = tiny.tokenizer()
    text = tokens.render(tokenizer, Dialogue("Two?", "2"))
    assert text == "<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
    assert tokens.render(tokenizer, Dialogue("Two?")).endswith("<|im_start|>assistant\n")
    tokenizer.chat_template = None
    assert tokens.render(tokenizer, Dialogue("Two?", "2")) == "Two?\n2"


def test_a_bos_of_the_template_is_not_doubled() -> None:
    documents = [Dialogue("Two?", "2"), Dialogue("Three?", "3")]
    encoded_documents = tokens.encode_documents(tiny.tokenizer(), documents)
    assert all(ids[0] == 1 for ids in encoded_documents)
    assert tokens.encode_documents(with_bos(), documents) == [ids[1:] for ids in encoded_documents]


def test_running_text_ends_with_a_blank_line() -> None:
    tokenizer = tiny.tokenizer()
    assert [
        tokenizer.decode(ids) for ids in tokens.encode_documents(tokenizer, ["one\n", "two"])
    ] == [
        "one\n\n",
        "two\n\n",
    ]
    tokenizer.chat_template = None
    assert (
        tokenizer.decode(tokens.encode_documents(tokenizer, [Dialogue("Two?", "2")])[0])
        == "Two?\n2\n\n"
    )
    assert tokens.encode_documents(tokenizer, []) == []
