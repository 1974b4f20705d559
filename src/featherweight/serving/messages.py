"""The turns of a conversation as clients send them, and as chat templates read them.

Everything that our own answers hold is accepted back: `refusal`, `annotations`, `tool_calls` and
their `index`, and the fields that clients fill with null. Results of tools come as `tool` turns.
Templates get the arguments of a call as an object, because they write them as JSON themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .fields import StrictModel, invalid_value

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",  # what results of tools were called at first
}
MAX_CALLS = 128
PART_TYPES = ("text", "input_text", "output_text")


def _role(value: Any) -> Any:
    if isinstance(value, str) and value not in ROLES:
        raise ValueError(f"should be one of {', '.join(ROLES)}")
    return ROLES[value] if isinstance(value, str) else value


def _content(value: Any) -> Any:
    """The text itself, or that of a list of content parts when all of them are text."""
    return value if not isinstance(value, list) else "\n".join(map(_part_text, value))


def _part_text(part: Any) -> str:
    fields = dict(part) if isinstance(part, dict) else {}
    kind, text = fields.pop("type", None), fields.pop("text", None)
    if kind == "refusal":
        kind, text = "text", fields.pop("refusal", None)
    if kind == "output_text":
        # They say where a text comes from and how likely it was; the text is the same without.
        fields.pop("annotations", None)
        fields.pop("logprobs", None)
    if kind not in PART_TYPES or any(value is not None for value in fields.values()):
        raise ValueError(
            'parts should look like {"type": "text", "text": "..."}; this model reads nothing else'
        )
    if not isinstance(text, str):
        raise ValueError("a part's text should be a string")
    return text


def _arguments(value: Any) -> Any:
    """The object in the JSON text of a call's arguments; no text is no arguments."""
    if not isinstance(value, str):
        return value
    try:
        arguments = json.loads(value or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"should be JSON, and is not: {error}") from None
    if not isinstance(arguments, dict):
        raise ValueError("should be a JSON object")
    return arguments


class CalledFunction(StrictModel):
    """The function that an earlier answer called, and with what."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    arguments: Annotated[dict[str, Any], BeforeValidator(_arguments)] = Field(default_factory=dict)
    # What OpenAI's client adds to answers that it has parsed; it repeats `arguments`.
    parsed_arguments: Any = None


class ToolCall(StrictModel):
    """A call in an earlier answer."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] = "function"
    index: int | None = None


class Message(StrictModel):
    """A turn of a conversation."""

    role: Annotated[str, BeforeValidator(_role)]
    content: Annotated[str, BeforeValidator(_content)] | None = None
    name: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS)] = Field(default_factory=list)
    function_call: CalledFunction | None = None
    tool_call_id: str | None = None
    type: Literal["text", "message"] | None = None
    # What OpenAI's client adds to answers that it has parsed; it repeats `content`.
    parsed: Any = None

    @property
    def calls(self) -> list[ToolCall]:
        """The calls of an answer, the old form included."""
        old_call = [] if self.function_call is None else [ToolCall(function=self.function_call)]
        return [*self.tool_calls, *old_call]

    def turn(self) -> dict[str, Any]:
        """The turn as chat templates read it."""
        content = self.content if self.content is not None else self.refusal
        turn: dict[str, Any] = {"role": self.role, "content": content or ""}
        if self.name is not None:
            turn["name"] = self.name
        if self.tool_call_id is not None:
            turn["tool_call_id"] = self.tool_call_id
        if self.calls:
            turn["tool_calls"] = [
                {
                    "id": call.id or f"call_{number}",
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": call.function.arguments,
                    },
                }
                for number, call in enumerate(self.calls)
            ]
        return turn


def to_turns(messages: Sequence[Message], param: str = "messages") -> list[dict[str, Any]]:
    """The conversation as chat templates read it.

    Raises ApiError 400 for a turn without content, and for fields that its role does not have;
    `param` is the name of the conversation in the request.
    """
    for number, message in enumerate(messages):
        place = f"{param}.{number}"
        for name in ("refusal", "tool_calls", "function_call"):
            if getattr(message, name) and message.role != "assistant":
                raise invalid_value(f"{place}.{name}", f"{name} belongs to assistant turns only")
        if message.tool_call_id is not None and message.role != "tool":
            raise invalid_value(f"{place}.tool_call_id", "tool_call_id belongs to tool turns only")
        if message.content is None and message.refusal is None and not message.calls:
            raise invalid_value(f"{place}.content", f"{place}.content is missing")
    return [message.turn() for message in messages]
