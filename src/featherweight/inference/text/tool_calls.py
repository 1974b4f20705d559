"""Calls of functions in an answer: how a model writes them, and how they are read while the answer
comes.

Each family writes calls in its own way (`<tool_call>\\n{"name": "f", "arguments": {}}\\n
</tool_call>`, `{"name": "f", "parameters": {}}`, `[TOOL_CALLS] [...]`). The model learned the way
of its chat template, so the template is asked: it writes a conversation with a made-up call, and
what stands around name and arguments is the format. Two calls in one turn show what stands between
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...base.errors import UsageError
from .tokenizer import ChatTokenizer

NAMES = ("zebra_lookup", "yak_counter")
ARGUMENTS = {"animal_name": "quagga-7"}
# Some templates take ids of nine letters and digits only.
IDS = ("q1w2e3r4t", "z9x8c7v6b")
QUESTION = {"role": "user", "content": "How many are there?"}


@dataclass(frozen=True)
class Function:
    """A function that an answer may call; parameters is the JSON schema of its arguments."""

    name: str
    parameters: dict[str, Any]

    def schema(self) -> dict[str, Any]:
        """The schema, which allows objects only. Raises UsageError for one of other values."""
        kind = self.parameters.get("type", "object")
        if kind != "object":
            raise UsageError(f"the parameters of {self.name} should have the type object")
        return {**self.parameters, "type": "object"}

    def tool(self) -> dict[str, Any]:
        """The function as chat templates read it."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": "", "parameters": self.parameters},
        }


@dataclass(frozen=True)
class CallFormat:
    """What a model writes around calls: `begin` NAME `middle` ARGUMENTS, for each further call
    `call_separator` NAME `middle` ARGUMENTS, and `end`.

    is_parallel says whether a turn may hold several calls; without, `call_separator` is "". The
    `shown` fields are the same texts as they are in the decoded answer, which lacks special tokens.
    """

    begin: str
    middle: str
    end: str
    call_separator: str
    is_parallel: bool
    shown_begin: str
    shown_middle: str
    shown_call_separator: str

    @classmethod
    def of(cls, tokenizer: ChatTokenizer) -> CallFormat:
        """The format of a model's own chat template.

        Raises UsageError when the template writes no tools, or calls in another form than JSON.
        """
        tools = [Function(name, {"type": "object", "properties": {}}).tool() for name in NAMES]
        if not writes_tools(tokenizer, tools):
            raise UsageError(
                "this model's chat template does not write tools: it renders a conversation the "
                "same with and without them"
            )
        prompt = tokenizer.render([QUESTION], tools=tools)
        one_call_turn = _answer_turn(tokenizer, prompt, tools, 1)
        begin, remainder = _split(one_call_turn, NAMES[0])
        middle, remainder = _split_arguments(remainder)
        end = _without_turn_end(remainder, tokenizer)
        if not begin.strip() or not middle:
            raise _unknown_form()
        call_separator = _call_separator(tokenizer, prompt, tools, end)
        decoded_parts = [
            tokenizer.decode(tokenizer.encode_plain(text))
            for text in (begin, middle, call_separator or "")
        ]
        if not decoded_parts[0].strip() or not decoded_parts[1].strip():
            raise _unknown_form()
        return cls(
            begin,
            middle,
            end,
            call_separator or "",
            call_separator is not None,
            decoded_parts[0].lstrip(),
            decoded_parts[1],
            decoded_parts[2],
        )


def writes_tools(tokenizer: ChatTokenizer, tools: list[dict[str, Any]]) -> bool:
    """Whether the chat template writes tools into a conversation."""
    if not tokenizer.has_template:
        return False
    return tokenizer.render([QUESTION], tools=tools) != tokenizer.render([QUESTION])


def _answer_turn(
    tokenizer: ChatTokenizer, prompt: str, tools: list[dict[str, Any]], num_calls: int
) -> str:
    """What the template writes behind `prompt` for an answer of made-up calls."""
    calls = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": ARGUMENTS}}
        for id, name in zip(IDS[:num_calls], NAMES, strict=False)
    ]
    turn = {"role": "assistant", "content": "", "tool_calls": calls}
    text = tokenizer.render([QUESTION, turn], tools=tools, add_generation_prompt=False)
    if not text.startswith(prompt):
        raise _unknown_form()
    return text[len(prompt) :]


def _call_separator(
    tokenizer: ChatTokenizer, prompt: str, tools: list[dict[str, Any]], end: str
) -> str | None:
    """What stands between two calls; None when a turn cannot hold two."""
    try:
        turn = _answer_turn(tokenizer, prompt, tools, 2)
        _, remainder = _split(turn, NAMES[0])
        _, remainder = _split_arguments(remainder)
        call_separator, remainder = _split(remainder, NAMES[1])
        _, remainder = _split_arguments(remainder)
    except UsageError:
        return None
    return (
        call_separator
        if call_separator and _without_turn_end(remainder, tokenizer) == end
        else None
    )


def _split(text: str, part: str) -> tuple[str, str]:
    """The text before and behind `part`."""
    text_before, separator, text_after = text.partition(part)
    if not separator:
        raise _unknown_form()
    return text_before, text_after


def _split_arguments(text: str) -> tuple[str, str]:
    """The text before and behind the made-up arguments as JSON."""
    decoder = json.JSONDecoder()
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except ValueError:
            value, end = None, 0
        if value == ARGUMENTS:
            return text[:position], text[end:]
        position = text.find("{", position + 1)
    raise _unknown_form()


def _without_turn_end(text: str, tokenizer: ChatTokenizer) -> str:
    """`text` up to the token that ends the turn."""
    ends = [text.find(tokenizer.token_text(id)) for id in tokenizer.end_ids]
    return text[: min([end for end in ends if end >= 0], default=len(text))].rstrip()


def _unknown_form() -> UsageError:
    return UsageError("this model's chat template writes calls in a form that cannot be read")


@dataclass(frozen=True)
class BareCalls:
    """A call without the template's marks, as the whole of an answer.

    key: the name of the arguments in the object. names: the functions that were offered. The
    patterns are those of regular expressions, in the part of the language that llguidance shares.
    """

    key: str
    names: tuple[str, ...]

    begin = r'\s{0,4}(```(json)?\s{0,4})?\{\s{0,8}"name"\s{0,4}:\s{0,4}"'
    end = r"\s{0,8}\}(\s{0,4}```)?\s{0,4}"

    @classmethod
    def of(cls, format: CallFormat, names: Sequence[str]) -> BareCalls | None:
        """None where the format itself has no marks, or writes no object around the call."""
        match = re.fullmatch(r'",\s*"(\w+)":\s*', format.middle)
        if match is None or format.shown_begin.startswith("{"):
            return None
        return cls(match[1], tuple(names))

    def head(self, name: str) -> str:
        """What an answer that calls `name` begins with, up to the colon before its arguments."""
        middle = rf'"\s{{0,4}},\s{{0,8}}"{self.key}"\s{{0,4}}:'
        return f"{self.begin}{re.escape(name)}{middle}"

    def find(self, text: str) -> tuple[str, int] | None:
        """The name of the function that an answer calls, and where its arguments begin; None when
        `text` is not, or not yet, the head of a call.
        """
        for name in self.names:
            if match := re.match(self.head(name) + r"\s*(?=\{)", text):
                return name, match.end()
        return None

    def is_beginning(self, text: str) -> bool:
        """Whether `text` may become the head of a call."""
        return self._beginnings.fullmatch(text) is not None

    @cached_property
    def _beginnings(self) -> re.Pattern[str]:
        """The head, which may end everywhere: each part is optional together with all behind it."""
        space = r"\s*"
        parts = [
            space,
            "(?:```(?:json|jso|js|j)?|``?)?",
            space,
            r"\{",
            space,
            *'"name"',
            space,
            ":",
        ]
        parts += [
            space,
            '"',
            r"[\w-]*",
            '"',
            space,
            ",",
            space,
            *f'"{self.key}"',
            space,
            ":",
            space,
        ]
        pattern = ""
        for part in reversed(parts):
            pattern = f"(?:{part}{pattern})?"
        return re.compile(pattern)


@dataclass(frozen=True)
class CallPart:
    """New text of an answer: of its content (`call` is None), or of call number `call` from 0: its
    name, once, or the next piece of its arguments.
    """

    call: int | None
    text: str = ""
    name: str | None = None


class CallParser:
    """Divides the text of one answer into content and calls, piece by piece.

    White space around calls belongs to neither. Text that may be the beginning of a call is
    withheld until it is one or is not.
    """

    num_calls: int  # that have begun

    def __init__(self, format: CallFormat, bare: BareCalls | None = None) -> None:
        """Args: bare, how an answer may be a call without marks (None: it may not)."""
        self.num_calls = 0
        self._format, self._bare, self._text = format, bare, ""
        self._state = self._read_content if bare is None else self._read_beginning
        self._arguments = JsonEnd()

    def push(self, text: str, is_final: bool = False) -> list[CallPart]:
        """The parts that are certain with the next piece of the answer, its last one if
        `is_final`.
        """
        self._text += text
        parts: list[CallPart] = []
        while True:
            state = self._state
            parts += state(is_final)
            if self._state == state:
                return parts

    def _read_beginning(self, is_final: bool) -> Iterator[CallPart]:
        """Decide whether the answer is a call without marks."""
        assert self._bare is not None
        if (head := self._bare.find(self._text)) is not None:
            name, end = head
            self._text, self._state = self._text[end:], self._read_arguments
            self.num_calls += 1
            yield CallPart(self.num_calls - 1, name=name)
        elif is_final or not self._bare.is_beginning(self._text):
            self._state = self._read_content

    def _read_content(self, is_final: bool) -> Iterator[CallPart]:
        begin = self._format.shown_begin
        position = self._text.find(begin)
        if position >= 0:
            content, self._text = (
                self._text[:position].rstrip(),
                self._text[position + len(begin) :],
            )
            self._state = self._read_name
        else:
            end = len(self._text)
            if not is_final:
                end = next(i for i in range(end + 1) if begin.startswith(self._text[i:]))
                end = len(self._text[:end].rstrip())
            content, self._text = self._text[:end], self._text[end:]
        if content:
            yield CallPart(None, content)

    def _read_name(self, is_final: bool) -> Iterator[CallPart]:
        name, separator, remainder = self._text.partition(self._format.shown_middle)
        if separator:
            self._text, self._state, self._arguments = remainder, self._read_arguments, JsonEnd()
            self.num_calls += 1
            yield CallPart(self.num_calls - 1, name=name)

    def _read_arguments(self, is_final: bool) -> Iterator[CallPart]:
        end = self._arguments.search(self._text)
        text, self._text = self._text[:end], self._text[end:]
        if self._arguments.is_complete:
            self._state = self._read_call_separator
        if text:
            yield CallPart(self.num_calls - 1, text)

    def _read_call_separator(self, is_final: bool) -> Iterator[CallPart]:
        call_separator = self._format.shown_call_separator
        if call_separator and self._text.startswith(call_separator):
            self._text, self._state = self._text[len(call_separator) :], self._read_name
        return iter(())


class JsonEnd:
    """Finds the end of a JSON object that comes piece by piece."""

    is_complete: bool  # whether the end was found

    def __init__(self) -> None:
        self.is_complete = False
        self._depth, self._is_text, self._is_escaped = 0, False, False

    def search(self, text: str) -> int:
        """The number of characters of the next piece that belong to the object."""
        for number, character in enumerate(text, 1):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_text:
                self._is_escaped = character == "\\"
                self._is_text = character != '"'
            elif character == '"':
                self._is_text = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.is_complete = True
                    return number
        return len(text)
