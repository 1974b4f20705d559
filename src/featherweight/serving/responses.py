"""POST /v1/responses in its basic form: text in, text out, complete or as a stream of events.

Nothing is stored, so an earlier answer cannot be named (`previous_response_id`): clients send the
whole conversation, and our own output items are accepted as its turns. Tools are offered by
/v1/chat/completions only.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ..inference.answer_builder import TextDelta
from ..inference.generation import Usage
from ..inference.text.tokenizer import ChatTokenizer
from .errors import ApiError
from .fields import StrictModel
from .messages import Message, to_turns
from .requests import MAX_TOKENS, BaseRequest
from .shapes import Shape, joined


def _input(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class InputMessage(Message):
    """A turn of the input; `id` and `status` are those of our own output items."""

    id: str | None = None
    status: str | None = None


class TextFormat(StrictModel):
    """Free text, any JSON object, or JSON of a schema, all in one object."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(max_length=64)] | None = None
    definition: dict[str, Any] | None = Field(default=None, alias="schema")
    description: str | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> TextFormat:
        if (self.type == "json_schema") != (self.definition is not None):
            raise ValueError("schema goes with type json_schema, and only with it")
        return self

    def schema_to_follow(self) -> dict[str, Any] | None:
        """The schema of the answer; None for free text."""
        return {"type": "object"} if self.type == "json_object" else self.definition


class TextOptions(StrictModel):
    """What the text should be."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ResponsesRequest(BaseRequest):
    """POST /v1/responses."""

    input: Annotated[
        list[InputMessage], Field(min_length=1, max_length=10_000), BeforeValidator(_input)
    ]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    text: TextOptions | None = None
    top_logprobs: Literal[0] = 0
    metadata: dict[str, str] = Field(default_factory=dict)

    def turns(self) -> list[dict[str, Any]]:
        """The conversation as chat templates read it. Raises ApiError 400."""
        turns = to_turns(self.input, "input")
        if self.instructions is None:
            return turns
        return [{"role": "system", "content": self.instructions}, *turns]

    @property
    def length_limit(self) -> tuple[str, int | None]:
        """The parameter that limits the answer, and the number of tokens in it."""
        return "max_output_tokens", self.max_output_tokens

    def schema_to_follow(self) -> dict[str, Any] | None:
        """The schema of the answer; None for free text."""
        if self.text is None or self.text.format is None:
            return None
        return self.text.format.schema_to_follow()


class ResponsesShape(Shape):
    """The object `response`, and the events that lead to it."""

    id_prefix = object_name = chunk_object_name = "response"
    ends_with_done, names_events = False, True

    def __init__(self, model: str, tokenizer: ChatTokenizer, request: ResponsesRequest) -> None:
        super().__init__(model, tokenizer, logprobs=False)
        self._id, self._item_id = f"resp_{secrets.token_hex(12)}", f"msg_{secrets.token_hex(12)}"
        self._model, self._request, self._created = model, request, int(time.time())
        self._num_events = 0
        self._deltas: list[TextDelta] = []

    def first_chunks(self) -> list[dict[str, Any]]:
        """The events before the first delta."""
        response = self._response("in_progress", [], None)
        item = {**self._item("", "in_progress"), "content": []}
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
            self._event("response.output_item.added", output_index=0, item=item),
            self._part_event("response.content_part.added", part=_part("")),
        ]

    def chunks(self, number: int, delta: TextDelta) -> list[dict[str, Any]]:
        """The event for one delta."""
        self._deltas.append(delta)
        if not delta.text:
            return []
        return [self._part_event("response.output_text.delta", delta=delta.text, logprobs=[])]

    def last_chunks(self, usage: Usage, with_usage: bool) -> list[dict[str, Any]]:
        """The events behind the last delta; the last one holds the complete answer."""
        answer = joined(self._deltas)
        response = self.response([answer], usage)
        item = response["output"][0]
        return [
            self._part_event("response.output_text.done", text=answer.text, logprobs=[]),
            self._part_event("response.content_part.done", part=_part(answer.text)),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(f"response.{response['status']}", response=response),
        ]

    def error_chunk(self, error: ApiError) -> dict[str, Any]:
        """The event for an error in the middle of a stream."""
        return self._event(
            "error", code=error.code or error.type, message=error.message, param=error.param
        )

    def choice(self, number: int, answer: TextDelta) -> dict[str, Any]:
        """The output item of the answer."""
        return self._item(answer.text, "incomplete" if answer.finish == "length" else "completed")

    def response(self, answers: Sequence[TextDelta], usage: Usage) -> dict[str, Any]:
        """The complete answer."""
        item = self.choice(0, answers[0])
        return self._response(item["status"], [item], usage)

    def _response(
        self, status: str, output: list[dict[str, Any]], usage: Usage | None
    ) -> dict[str, Any]:
        request = self._request
        is_incomplete = status == "incomplete"
        text = request.text or TextOptions()
        text_format: dict[str, Any] = {"type": "text"}
        if text.format is not None:
            text_format = text.format.model_dump(by_alias=True, exclude_none=True)
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_incomplete else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata,
            "model": self._model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "temperature": request.temperature,
            "text": {"format": text_format},
            "tool_choice": "auto",
            "tools": [],
            "top_p": request.top_p,
            "truncation": "disabled",
            "usage": None if usage is None else _usage_object(usage),
        }

    def _item(self, text: str, status: str) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [_part(text)],
        }

    def _part_event(self, kind: str, **fields: Any) -> dict[str, Any]:
        return self._event(kind, item_id=self._item_id, output_index=0, content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._num_events += 1
        return {"type": kind, "sequence_number": self._num_events - 1, **fields}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
