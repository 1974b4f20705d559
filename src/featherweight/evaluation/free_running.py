"""The free-running check: can the light model still talk?

KL and perplexity read a given text, where each token follows the true ones. Alone, a model reads
what it wrote itself, and a small error can send it round in circles: rotated models of 2 bits may
keep their likelihood and fail to talk. So the original and the light model answer the same prompts
greedily, and four faults are counted:

- loops: the answer repeats itself (`repetition.py`);
- endless: it reached the largest number of tokens without an end token;
- empty: it has no visible character;
- form_breaks: it lacks the form that its prompt asks for, such as a number or JSON.

The original has faults too: small models loop, and an essay needs more tokens than the cap. So the
light model is judged by the difference of its rate from the original's over the same prompts.

A model without a chat template gets the conversations as plain text to be continued. Nothing says
that it should follow an instruction then, so the form of its answers is not checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..base.errors import BadInput
from ..base.events import Listener, silent, track
from ..base.sampling import Sampling
from ..base.statistics import paired_rate_difference
from ..data.prompts import Prompt
from ..inference.engine import Engine
from ..inference.prefixes import common_prefix_length
from ..inference.text.tokenizer import ChatTokenizer
from .answers import generate_answers
from .repetition import is_loop

FAULTS = ("loops", "endless", "empty", "form_breaks")
# A fault is flagged when the interval of its difference lies above zero. Four are looked at, so
# each interval is one of 98.75 %: then all four hold together with 95 %, and a model that talks
# like its original is flagged by chance in at most one run of forty (the half of 5 % that lies on
# the side of more faults). With 100 prompts it takes 8 loops where the original has none, with 20
# prompts 6. The original against itself differs nowhere, and its intervals begin at or below zero.
LEVEL = 1 - 0.05 / len(FAULTS)
NUM_SAMPLES = 4


@dataclass(frozen=True)
class FreeAnswer:
    """text: without special tokens; tokens: without the end token; is_endless: whether it was cut
    at the largest number of tokens.
    """

    text: str
    tokens: tuple[int, ...]
    is_endless: bool

    def faults(self, prompt: Prompt, with_forms: bool) -> dict[str, bool]:
        """Which faults the answer has; `form_breaks` only where the prompt asks for a form."""
        faults = {
            "loops": is_loop(self.tokens),
            "endless": self.is_endless,
            "empty": not self.text.strip(),
        }
        if with_forms and prompt.form is not None:
            faults["form_breaks"] = not prompt.has_form(self.text)
        return faults


def encode_prompts(tokenizer: ChatTokenizer, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids of each prompt: conversations through the chat template where there is one."""
    return [
        tokenizer.chat(prompt.messages)
        if prompt.turns and tokenizer.has_template
        else tokenizer.encode(prompt.plain_text)
        for prompt in prompts
    ]


def answer_freely(
    engine: Engine,
    tokenizer: ChatTokenizer,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    stage: str = "answers",
    listener: Listener = silent,
) -> list[FreeAnswer]:
    """The greedy answer to each prompt (token ids), of at most `max_tokens`.

    listener: receives an event of `stage` for each answer. Raises UsageError for a number of tokens
    that does not fit the model's context, BadInput for logits that are not finite.
    """
    samplings = [Sampling(max_tokens, temperature=0)] * len(prompts)
    answers = generate_answers(engine, tokenizer, prompts, samplings)
    return [
        FreeAnswer(
            answer.text,
            answer.tokens if answer.finish == "length" else answer.tokens[:-1],
            answer.finish == "length",
        )
        for answer in track(answers, stage, len(prompts), listener)
    ]


def compare_answers(
    prompts: Sequence[Prompt],
    original: Sequence[FreeAnswer],
    light: Sequence[FreeAnswer],
    with_forms: bool,
) -> dict[str, Any]:
    """The entries of `free_running` in results.json that the answers alone decide.

    with_forms: whether the form of the answers is checked.
    """
    if not prompts or not len(prompts) == len(original) == len(light):
        raise BadInput(f"{len(original)} and {len(light)} answers to {len(prompts)} prompts")
    tables = [
        [answer.faults(prompt, with_forms) for prompt, answer in zip(prompts, answers, strict=True)]
        for answers in (original, light)
    ]
    rates = {name: rate for name in FAULTS if (rate := _rate(name, *tables)) is not None}
    num_equal = sum(a.text == b.text for a, b in zip(original, light, strict=True))
    return {
        "prompts": len(prompts),
        "kinds": dict(Counter(prompt.kind for prompt in prompts)),
        "forms_checked": with_forms,
        "level": LEVEL,
        "rates": rates,
        "num_flags": sum(rate["flag"] for rate in rates.values()),
        "equal_answers": num_equal / len(prompts),
        "mean_tokens": {
            name: sum(len(answer.tokens) for answer in answers) / len(answers)
            for name, answers in (("original", original), ("light", light))
        },
        "samples": _samples(prompts, original, light, *tables),
    }


Faults = Sequence[Mapping[str, bool]]


def _rate(name: str, original: Faults, light: Faults) -> dict[str, Any] | None:
    """Both rates of a fault, and their difference with its interval; None where no prompt can show
    it.
    """
    pairs = [(a[name], b[name]) for a, b in zip(original, light, strict=True) if name in a]
    if not pairs:
        return None
    of_original, of_light = ([pair[side] for pair in pairs] for side in (0, 1))
    difference = paired_rate_difference(of_light, of_original, LEVEL)
    return {
        "prompts": len(pairs),
        "original": sum(of_original) / len(pairs),
        "light": sum(of_light) / len(pairs),
        "difference": difference.as_dict(),
        "flag": difference.low > 0,
    }


def _samples(
    prompts: Sequence[Prompt],
    original: Sequence[FreeAnswer],
    light: Sequence[FreeAnswer],
    original_faults: Faults,
    light_faults: Faults,
) -> list[dict[str, Any]]:
    """The pairs of answers that differ most: first by the light model's additional faults, then by
    how early the answers part.
    """

    def rank(index: int) -> tuple[int, float]:
        num_added = sum(light_faults[index].values()) - sum(original_faults[index].values())
        a, b = ([*map(ord, answers[index].text)] for answers in (original, light))
        return -num_added, common_prefix_length(a, b) / max(len(a), len(b), 1)

    order = sorted(range(len(prompts)), key=rank)
    return [
        {
            "kind": prompts[index].kind,
            "prompt": prompts[index].text or "\n".join(prompts[index].turns),
            "original": original[index].text,
            "light": light[index].text,
            "original_faults": [name for name, is_at in original_faults[index].items() if is_at],
            "light_faults": [name for name, is_at in light_faults[index].items() if is_at],
        }
        for index in order[:NUM_SAMPLES]
        if original[index].text != light[index].text
    ]
