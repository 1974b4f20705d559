"""The number that an answer states, read as an integer or fraction: 18, 18.00, 36/2 and
\\frac{36}{2} are equal.

Where the number is read, in this order, and in the text after `</think>` when the answer thinks:

1. what stands in `\\boxed{...}` and in the line after `####`, each of which must hold exactly one
   number, and the same one if both are there;
2. else the last number.

An answer whose form would let a model gain without being right is refused, whatever it says:
several boxes or several `####` (guesses), several `<think>` or `</think>`, thinking that does not
end, and reasoning outside of the thinking, that is, before `<think>` or in more than 300 characters
after `</think>`. A model that thinks without these marks may write as much as it likes.
"""

from __future__ import annotations

import re
from fractions import Fraction

THINK, END_THINK = "<think>", "</think>"
MAX_FINAL_CHARACTERS = 300
MAX_NUMBER_CHARACTERS = 100
LINE = re.compile(r"####[ \t]*([^\n]*)")
BOX = re.compile(r"\\boxed\s*\{")
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>(?<![)\]}])[-−+])?\$?"
    rf"(?:\\[dt]?frac\{{(?P<top>{DIGITS})\}}\{{(?P<bottom>{DIGITS})\}}"
    rf"|(?P<number>{DIGITS})(?:\s?/\s?(?P<divisor>{DIGITS}))?)(?![0-9]|[eE][0-9])"
)


def number_grade(gold: str, answer: str) -> float | None:
    """1 when `answer` states the number of `gold`, else 0; None when `gold` states none."""
    number = stated_number(gold)
    return None if number is None else float(stated_number(answer) == number)


def stated_number(answer: str) -> Fraction | None:
    """The number that `answer` states; None when it has none, or its form is refused."""
    text = final_part(answer)
    if text is None:
        return None
    marked_texts = [*boxes(text), *LINE.findall(text)]
    if marked_texts:
        numbers = {_only_number(marked_text) for marked_text in marked_texts}
        return numbers.pop() if len(numbers) == 1 else None
    matches = list(NUMBER.finditer(text))
    return _fraction(matches[-1]) if matches else None


def final_part(answer: str) -> str | None:
    """The text after the thinking, or all when there is no thinking; None for a form that is
    refused.
    """
    num_ends = answer.count(END_THINK)
    thoughts, _, text = answer.rpartition(END_THINK)
    prologue, think, _ = (thoughts if num_ends else answer).partition(THINK)
    if num_ends > 1 or answer.count(THINK) > 1 or (think and (prologue.strip() or not num_ends)):
        return None
    if THINK in text and num_ends:
        return None
    text = text.strip()
    if num_ends and len(text) > MAX_FINAL_CHARACTERS:
        return None
    return text if len(boxes(text)) <= 1 and len(LINE.findall(text)) <= 1 else None


def boxes(text: str) -> list[str]:
    """What stands in each `\\boxed{...}`; empty for one that is not closed."""
    contents = []
    for match in BOX.finditer(text):
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        contents.append("" if depth else text[match.end() : end - 1])
    return contents


def _only_number(text: str) -> Fraction | None:
    matches = list(NUMBER.finditer(text))
    return _fraction(matches[0]) if len(matches) == 1 else None


def _fraction(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > MAX_NUMBER_CHARACTERS:
        return None
    names = ("top", "bottom") if match["top"] else ("number", "divisor")
    top, bottom = match.group(*names)
    divisor = Fraction((bottom or "1").replace(",", ""))
    if not divisor:
        return None
    return Fraction(top.replace(",", "")) / divisor * (-1 if match["sign"] in ("-", "−") else 1)
