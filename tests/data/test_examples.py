"""The assistant's tokens are marked exactly, or the template is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from featherweight.base.errors import BadInput, UsageError
from featherweight.data import Example, answer_example, chat_example

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "The fox?"},
    {"role": "assistant", "content": "It jumps over the dog. "},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "the dog sleeps\n"},
]
ANSWERS = ["It jumps over the dog. <|im_end|>", "the dog sleeps\n<|im_end|>"]
# The same text as tiny.CHAT, with marks around the answers.
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Reasoning of earlier turns is dropped, as Qwen3's template does.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] if loop.last else m['content'].split('</think>')[-1] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Llama 2's: nothing marks the beginning of an answer but the end of the question.
BARE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[Q] {{ m['content'] }} [A]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def tokenizer(template: str | None = tiny.CHAT) -> Any:
    made = tiny.tokenizer()
    made.chat_template = template
    return made


def answers_of(made: Any, example: Example) -> list[str]:
    """The text of each run of marked tokens."""
    texts: list[list[int]] = []
    was_marked = False
    for id, is_marked in zip(example.ids.tolist(), example.loss_mask.tolist(), strict=True):
        if is_marked and not was_marked:
            texts.append([])
        if is_marked:
            texts[-1].append(id)
        was_marked = is_marked
    return [made.decode(ids) for ids in texts]


@pytest.mark.parametrize("template", [tiny.CHAT, MARKED])
def test_answers_and_their_ends_are_marked(template: str) -> None:
    made = tokenizer(template)
    example = chat_example(made, MESSAGES)
    whole = made.apply_chat_template(MESSAGES, tokenize=True, return_dict=False)
    assert example.ids.tolist() == whole
    assert answers_of(made, example) == ANSWERS
    assert example.messages == tuple(MESSAGES)
    assert answers_of(made, chat_example(made, MESSAGES, turns="last")) == ANSWERS[1:]


def test_an_answer_follows_the_tokens_that_it_follows_in_use() -> None:
    made = tokenizer()
    example = chat_example(made, MESSAGES)
    start = int(example.loss_mask.int().argmax())
    prompt = made.apply_chat_template(
        MESSAGES[:2], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert example.ids[:start].tolist() == prompt


def test_a_template_without_headers() -> None:
    made = tokenizer(BARE)
    messages = MESSAGES[1:]
    texts = [f" {text.removesuffix('<|im_end|>')}<|im_end|>" for text in ANSWERS]
    assert answers_of(made, chat_example(made, messages)) == texts


def test_a_template_that_rewrites_turns_is_refused_by_name() -> None:
    made = tokenizer(FORGETFUL)
    made.name_or_path = "forgetful-model"
    messages = [dict(message) for message in MESSAGES]
    messages[2]["content"] = "<think>a fox</think>It jumps."
    with pytest.raises(UsageError, match="template of forgetful-model writes message 2 in another"):
        chat_example(made, messages)
    assert answers_of(made, chat_example(made, messages, turns="last")) == ANSWERS[1:]
    # Without reasoning nothing is rewritten, so all turns can be learned.
    assert answers_of(made, chat_example(made, MESSAGES)) == ANSWERS


def test_marks_that_do_not_fit_the_conversation_are_refused() -> None:
    made = tokenizer(MARKED.replace("== 'assistant'", "== 'assistant' and loop.last"))
    with pytest.raises(UsageError, match="marks 1 answers, and the conversation has 2"):
        chat_example(made, MESSAGES)


def test_shared_tokens_are_refused() -> None:
    # "th" and "e" are one token together, so the boundary lies inside of it.
    made = tokenizer("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    messages = [{"role": "user", "content": "th"}, {"role": "assistant", "content": "e dog"}]
    with pytest.raises(UsageError, match="joins 'th' and 'e dog' into one token"):
        chat_example(made, messages)


@pytest.mark.parametrize(
    ("template", "messages", "error", "message"),
    [
        (None, MESSAGES, UsageError, "no chat template"),
        (tiny.CHAT, MESSAGES[:2], BadInput, "no message of the assistant"),
        (tiny.CHAT, [], BadInput, "no message of the assistant"),
        ("{{ raise_exception('odd roles') }}", MESSAGES, UsageError, "odd roles"),
    ],
)
def test_what_cannot_be_learned(
    template: str | None, messages: list, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        chat_example(tokenizer(template), messages)
    with pytest.raises(UsageError, match="ends with the assistant"):
        chat_example(tokenizer(), MESSAGES[:4], turns="last")


def test_plain_answers_end_with_eos() -> None:
    made = tokenizer(None)
    example = answer_example(made, "The quick", " brown fox")
    assert answers_of(made, example) == [" brown fox<|im_end|>"]
    assert example.ids[:-1].tolist() == made.encode("The quick brown fox")
    with pytest.raises(UsageError, match="share a token"):
        answer_example(made, "th", "e dog")
    made.eos_token = None
    with pytest.raises(UsageError, match="no EOS"):
        answer_example(made, "The quick", " brown fox")


def test_an_example_has_something_to_learn() -> None:
    ids = torch.arange(3)
    with pytest.raises(BadInput, match="no token"):
        Example(ids, torch.zeros(3, dtype=torch.bool))
