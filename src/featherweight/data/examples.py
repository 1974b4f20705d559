"""Examples to train on: token ids, and which of them are the assistant's.

The loss counts only what the model itself would write: the answer of each turn and the token that
ends it, not the question, not the template's headers. Where these tokens begin and end must be
exact, because a mask that is off by one teaches the model a header, or never to stop. There are two
ways to know:

- a template with `{% generation %}` marks the answers itself;
- otherwise the conversation is rendered up to each answer, as for generating it, and through it.
  Both renderings must be prefixes of the whole; what lies between is the answer. White space behind
  its last special token is the template's.

In both cases the tokens of each prefix, encoded alone, must be the first tokens of the whole. Then
a trained answer follows exactly the tokens that it follows when the model is used. A template or a
tokenizer for which this does not hold is refused: one that rewrites earlier turns (and drops their
reasoning, say) can be trained on its last turn only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ..base.errors import BadInput, UsageError
from .tokens import encode, has_template, prefix

Message = Mapping[str, Any]
Turns = Literal["all", "last"]
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
Span = tuple[int, int]  # characters of a text


@dataclass(frozen=True, eq=False)
class Example:
    """One text to train on.

    ids: its tokens. loss_mask: True for the tokens that the model should learn to write. messages:
    the conversation it was rendered from, if any. Raises BadInput when the lengths differ, or no
    token is to be learned.
    """

    ids: Int64[Tensor, " length"]
    loss_mask: Bool[Tensor, " length"]
    messages: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        if self.ids.shape != self.loss_mask.shape:
            raise BadInput(f"{len(self.ids)} ids and a loss mask of {len(self.loss_mask)}")
        if not self.loss_mask.any():
            raise BadInput("no token of this example is to be learned; its answer is empty")


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """A batch as `training.losses.TokenLoss` reads it: `input_ids`, `attention_mask` and
    `loss_mask` (examples, longest). Shorter examples are padded at the end, with token 0, which
    nothing reads.
    """
    longest = max(len(example.ids) for example in examples)
    batch = {
        "input_ids": torch.zeros(len(examples), longest, dtype=torch.int64),
        "attention_mask": torch.zeros(len(examples), longest, dtype=torch.int64),
        "loss_mask": torch.zeros(len(examples), longest, dtype=torch.bool),
    }
    for row, example in enumerate(examples):
        length = len(example.ids)
        batch["input_ids"][row, :length] = example.ids
        batch["attention_mask"][row, :length] = 1
        batch["loss_mask"][row, :length] = example.loss_mask
    return batch


def answer_example(tokenizer: Any, prompt: str, answer: str) -> Example:
    """A plain prompt and its answer, such as a task's; the answer ends with the EOS token.

    Raises UsageError when prompt and answer share a token, or the tokenizer has no EOS.
    """
    if tokenizer.eos_token_id is None:
        raise UsageError("the tokenizer has no EOS token, so an answer could not end")
    ids = prefix(tokenizer) + encode(tokenizer, prompt + answer)
    prompt_ids = prefix(tokenizer) + encode(tokenizer, prompt)
    if ids[: len(prompt_ids)] != prompt_ids:
        raise UsageError(
            f"the end of the prompt {prompt[-20:]!r} and the beginning of the answer "
            f"{answer[:20]!r} share a token; move white space from the prompt to the answer"
        )
    mask = torch.arange(len(ids) + 1) >= len(prompt_ids)
    return Example(torch.tensor([*ids, tokenizer.eos_token_id]), mask)


def chat_example(tokenizer: Any, messages: Sequence[Message], turns: Turns = "all") -> Example:
    """A conversation of one or more turns in the chat template.

    Args: tokenizer, a transformers tokenizer; messages, each {"role", "content"} and whatever else
    the template reads; turns, whether all answers are learned or the last one only. Raises
    UsageError, naming the template, when the answers' tokens cannot be marked exactly; BadInput for
    a conversation without an answer.
    """
    if not has_template(tokenizer):
        raise UsageError(f"{_name(tokenizer)} has no chat template; use answer_example")
    answers = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    if not answers:
        raise BadInput("the conversation has no message of the assistant, so nothing to learn")
    if turns == "last" and answers[-1] != len(messages) - 1:
        raise UsageError("turns='last' needs a conversation that ends with the assistant")
    if GENERATION.search(str(tokenizer.chat_template)):
        text, spans = _marked_spans(tokenizer, messages, len(answers))
        spans = spans[-1:] if turns == "last" else spans
    else:
        text = _render(tokenizer, messages)
        chosen_answers = answers[-1:] if turns == "last" else answers
        spans = [_rendered_span(tokenizer, messages, i, text) for i in chosen_answers]
    ids = encode(tokenizer, text)
    mask = torch.zeros(len(ids), dtype=torch.bool)
    for start, end in spans:
        mask[_num_tokens(tokenizer, text, start, ids) : _num_tokens(tokenizer, text, end, ids)] = (
            True
        )
    return Example(torch.tensor(ids), mask, tuple(messages))


def _marked_spans(
    tokenizer: Any, messages: Sequence[Message], num_answers: int
) -> tuple[str, list[Span]]:
    """The conversation as text, and the answers as the template itself marks them."""
    from transformers.utils.chat_template_utils import render_jinja_template

    render: Any = render_jinja_template
    texts, spans = render(
        [list(messages)],
        chat_template=tokenizer.chat_template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    answer_spans = [(int(start), int(end)) for start, end in spans[0]]
    if len(answer_spans) != num_answers:
        raise UsageError(
            f"the chat template of {_name(tokenizer)} marks {len(answer_spans)} answers, and the "
            f"conversation has {num_answers}"
        )
    return str(texts[0]), answer_spans


def _rendered_span(tokenizer: Any, messages: Sequence[Message], index: int, text: str) -> Span:
    """Where the answer at `index` lies in the whole conversation `text`."""
    prompt = _render(tokenizer, messages[:index], add_generation_prompt=True)
    prompt_and_answer = _render(tokenizer, messages[: index + 1])
    if not (text.startswith(prompt_and_answer) and prompt_and_answer.startswith(prompt)):
        raise UsageError(
            f"the chat template of {_name(tokenizer)} writes message {index} in another way when "
            "other messages follow, so its tokens cannot be marked exactly; give one conversation "
            "for each answer, with turns='last', or a template with {% generation %}"
        )
    special_tokens = tuple(tokenizer.get_added_vocab()) or ("",)
    stripped_text = prompt_and_answer.rstrip()
    if stripped_text.endswith(special_tokens) and len(stripped_text) > len(prompt):
        return len(prompt), len(stripped_text)
    return len(prompt), len(prompt_and_answer)


def _render(
    tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool = False
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )
    except Exception as error:  # a template is a program, which may refuse or fail
        raise UsageError(
            f"the chat template of {_name(tokenizer)} refuses {len(messages)} messages: {error}"
        ) from error


def _num_tokens(tokenizer: Any, text: str, end: int, ids: list[int]) -> int:
    """The tokens of `text[:end]`, which must be the first ones of the whole text's `ids`."""
    prefix_ids = encode(tokenizer, text[:end])
    if ids[: len(prefix_ids)] != prefix_ids:
        raise UsageError(
            f"the tokenizer of {_name(tokenizer)} joins {text[max(0, end - 12) : end]!r} and "
            f"{text[end : end + 12]!r} into one token, so the answer cannot be marked exactly"
        )
    return len(prefix_ids)


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
