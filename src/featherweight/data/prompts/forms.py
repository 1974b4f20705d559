"""The checks of an answer's form: does it look as the prompt asked, whatever it says?

Those of IFEval's instructions, and some for the shortest answers. They are as lenient as a reader
would be ("**Yes.**" begins with yes, JSON may stand in a code block), so that a break is a break.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..tasks.instructions import CHECKS, Check

LIST_LINE = re.compile(r"^\s*(?:[-*•+]|\d+[.):])\s+\S", re.MULTILINE)
CODE_BLOCK = re.compile(r"```[^\n`]*\n.*?\S.*?\n\s*```", re.DOTALL)


def _number(answer: str) -> bool:
    return re.fullmatch(r"[\s*]*[-+]?\d[\d.,]*[\s*]*", answer) is not None


def _word(answer: str) -> bool:
    return re.fullmatch(r"\W*\w[\w'’-]*\W*", answer) is not None


def _choice(answer: str, options: Sequence[str]) -> bool:
    words = "|".join(map(re.escape, options))
    return re.fullmatch(rf"\W*(?:{words})\W*", answer, re.IGNORECASE) is not None


def _first_yes_no(answer: str) -> bool:
    return re.match(r"\W*(?:yes|no)\b", answer, re.IGNORECASE) is not None


def _items(answer: str, count: int) -> bool:
    return len(LIST_LINE.findall(answer)) == count


def _json(answer: str, keys: Sequence[str]) -> bool:
    """JSON with these keys, as the whole answer or in its first code block."""
    block = CODE_BLOCK.search(answer)
    text = answer if block is None else block[0]
    return CHECKS["detectable_format:json_format"](text) and all(f'"{key}"' in text for key in keys)


def _code_block(answer: str) -> bool:
    return CODE_BLOCK.search(answer) is not None


FORMS: Mapping[str, Check] = MappingProxyType(
    {
        **CHECKS,
        "choice": _choice,
        "code_block": _code_block,
        "first_yes_no": _first_yes_no,
        "items": _items,
        "json": _json,
        "number": _number,
        "word": _word,
    }
)
