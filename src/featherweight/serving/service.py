"""The handlers of the routes: a request is read and checked in full and its answers are begun
before the response starts.

The response waits for the first delta, so that an error before it has a proper status. An error
after it is an event of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import Request
from starlette.responses import Response

from ..base.errors import UsageError
from ..inference.answer_builder import TextDelta
from ..inference.batching.requests import PromptScoring
from ..inference.text.grammars import GrammarMask
from ..inference.text.tool_calls import BareCalls, CallParser
from .answers import Answers, Job, cancel_on_disconnect
from .bodies import read_object
from .errors import CLIENT_LEFT, ApiError, from_exception, to_json
from .fields import invalid_value, read
from .hosted_models import HostedModel, HostedModels
from .limits import Limits
from .messages import to_turns
from .metrics import Metrics
from .requests import BaseRequest, ChatRequest, CompletionRequest
from .responses import ResponsesRequest, ResponsesShape
from .sampling import for_choice, to_sampling
from .shapes import ChatShape, CompletionShape, Shape, joined
from .streams import EventStream
from .tools import ToolUse


class JsonResponse(Response):
    """JSON as `to_json` writes it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of `content`."""
        return to_json(content)


class Service:
    """The handlers of the routes, and the models, limits and metrics that they share."""

    def __init__(self, models: HostedModels, limits: Limits, routes: frozenset[str]) -> None:
        self.models, self.limits = models, limits
        self.metrics = Metrics(models, routes)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await _with_error_response(self._chat(request))

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        return await _with_error_response(self._complete(request))

    async def respond(self, request: Request) -> Response:
        """POST /v1/responses."""
        return await _with_error_response(self._respond(request))

    async def _chat(self, request: Request) -> Response:
        body = read(ChatRequest, await read_object(request, self.limits))
        body.check()
        model = self.models.find(body.model)
        tools = ToolUse(body.tools, body.tool_choice, body.parallel_tool_calls)
        turns = to_turns(body.messages)
        # In a thread: a long conversation takes a while to tokenize, and the deltas of other
        # answers must not wait for it.
        prompt = await asyncio.to_thread(_chat_prompt, model, turns, tools)
        schema = None if body.response_format is None else body.response_format.schema_to_follow()
        mask, new_parser = await asyncio.to_thread(_chat_mask, model, tools, schema)
        tokenizer = model.batcher.tokenizer
        shape = ChatShape(model.name, tokenizer, body.logprobs, body.n, new_parser)
        sampling = to_sampling(body, len(prompt), model.batcher.capacity, self.limits)
        jobs = [
            Job(prompt, for_choice(sampling, number), mask and (mask.copy() if number else mask))
            for number in range(body.n)
        ]
        return await self._answer(request, body, model, jobs, shape, body.n)

    async def _complete(self, request: Request) -> Response:
        body = read(CompletionRequest, await read_object(request, self.limits))
        body.check()
        model = self.models.find(body.model)
        tokenizer = model.batcher.tokenizer
        prompts = await asyncio.to_thread(
            lambda: [
                tuple(tokenizer.encode(prompt)) if isinstance(prompt, str) else prompt
                for prompt in body.prompt
            ]
        )
        scoring = None
        if body.echo and (body.logprobs is not None or body.max_tokens == 0):
            scoring = PromptScoring(body.logprobs or 0, body.max_tokens != 0)
        jobs = []
        for prompt in prompts:
            sampling = to_sampling(body, len(prompt), model.batcher.capacity, self.limits)
            if body.num_tries > body.n and sampling.logprobs is None:
                sampling = replace(sampling, logprobs=0)  # by which the best are found
            jobs += [
                Job(prompt, for_choice(sampling, number), scoring=scoring)
                for number in range(body.num_tries)
            ]
        echoes = [
            (prompt if isinstance(prompt, str) else tokenizer.decode(prompt)) if body.echo else ""
            for prompt in body.prompt
            for _ in range(body.n)
        ]
        shape = CompletionShape(model.name, tokenizer, body.logprobs is not None, echoes)
        return await self._answer(
            request, body, model, jobs, shape, body.num_tries, lambda tries: _best(tries, body.n)
        )

    async def _respond(self, request: Request) -> Response:
        body = read(ResponsesRequest, await read_object(request, self.limits))
        body.check()
        model = self.models.find(body.model)
        tools = ToolUse([], None, None)
        prompt = await asyncio.to_thread(_chat_prompt, model, body.turns(), tools)
        schema = body.schema_to_follow()
        mask, _ = await asyncio.to_thread(_chat_mask, model, tools, schema, "text")
        sampling = to_sampling(body, len(prompt), model.batcher.capacity, self.limits)
        shape = ResponsesShape(model.name, model.batcher.tokenizer, body)
        return await self._answer(request, body, model, [Job(prompt, sampling, mask)], shape)

    async def _answer(
        self,
        request: Request,
        body: BaseRequest,
        model: HostedModel,
        jobs: Sequence[Job],
        shape: Shape,
        num_tries: int = 1,
        choose: Callable[[list[TextDelta]], list[TextDelta]] = list,
    ) -> Response:
        """The response to a request: `num_tries` jobs for each prompt, of whose answers `choose`
        returns those that the client gets.
        """
        limit = model.batcher.num_slots + model.batcher.queue_limit
        if len(jobs) > limit:
            message = (
                f"this request asks for {len(jobs)} answers; this server holds {limit} at once"
            )
            raise invalid_value(body.count_param, message)
        answers = Answers(model, jobs, self.metrics, self.limits.answer_seconds, num_tries)
        if body.stream:
            first = await cancel_on_disconnect(request, answers, answers.__anext__())
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return EventStream(answers, first, shape, with_usage)
        deltas = await cancel_on_disconnect(request, answers, answers.read_all())
        complete = [joined(answer_deltas) for answer_deltas in deltas]
        chosen_answers = [
            answer
            for start in range(0, len(complete), num_tries)
            for answer in choose(complete[start : start + num_tries])
        ]
        return JsonResponse(shape.response(chosen_answers, answers.usage()))

    async def list_models(self) -> Response:
        """GET /v1/models."""
        return JsonResponse({"object": "list", "data": [model.entry() for model in self.models]})

    async def show_model(self, name: str) -> Response:
        """GET /v1/models/NAME; names may hold slashes."""
        return await _with_error_response(self._show_model(name))

    async def _show_model(self, name: str) -> Response:
        return JsonResponse(self.models.find(name).entry())

    async def health(self) -> Response:
        """GET /health: 200 while the thread of every model runs, else 503."""
        is_alive = all(model.batcher.is_alive for model in self.models)
        return JsonResponse({"status": "ok" if is_alive else "failed"}, 200 if is_alive else 503)

    async def show_metrics(self) -> Response:
        """GET /metrics."""
        return Response(self.metrics.text(), headers={"Content-Type": self.metrics.content_type})


async def _with_error_response(response: Awaitable[Response]) -> Response:
    """The response, or the one for the exception that it raises."""
    try:
        return await response
    except Exception as error:
        api_error = from_exception(error)
        if api_error.status == CLIENT_LEFT:
            # Nobody reads this response; the guard counts its status.
            return Response(status_code=CLIENT_LEFT)
        return api_error.response()


def _chat_prompt(
    model: HostedModel, turns: list[dict[str, Any]], tools: ToolUse
) -> tuple[int, ...]:
    """Token ids of a conversation. Raises ApiError when the template leaves earlier calls out."""
    tokenizer = model.batcher.tokenizer
    shown_tools = [tool.for_template() for tool in tools.tools]
    prompt = tokenizer.chat(turns, shown_tools)
    if any("tool_calls" in turn for turn in turns):
        without_calls = [
            {name: field for name, field in turn.items() if name != "tool_calls"} for turn in turns
        ]
        if tokenizer.chat(without_calls, shown_tools) == prompt:
            message = "messages: this model's chat template leaves tool_calls out"
            raise ApiError(400, message, param="messages", code="invalid_value")
    return tuple(prompt)


def _chat_mask(
    model: HostedModel,
    tools: ToolUse,
    schema: dict[str, Any] | None,
    schema_param: str = "response_format",
) -> tuple[GrammarMask | None, Callable[[], CallParser] | None]:
    """The mask of an answer, and what makes the reader of its calls.

    Raises ApiError when a schema cannot be used, the template has no tools, or the extra is not
    installed.
    """
    param = "tools" if tools.functions else schema_param
    try:
        if tools.functions:
            mask = model.grammars.calls(
                model.call_format,
                tools.functions,
                is_required=tools.is_required,
                is_parallel=tools.is_parallel and model.call_format.is_parallel,
                content_schema=schema,
            )
            bare = None
            if not tools.is_required and schema is None:
                bare = BareCalls.of(model.call_format, [f.name for f in tools.functions])
            return mask, partial(CallParser, model.call_format, bare)
        return None if schema is None else model.grammars.json_schema(schema), None
    except UsageError as error:
        raise ApiError(400, f"{param}: {error}", param=param, code="invalid_value") from error


def _best(tries: list[TextDelta], count: int) -> list[TextDelta]:
    """The `count` answers whose tokens have the highest mean log-probability; all in their order
    when no more were made.
    """

    def mean_logprob(answer: TextDelta) -> float:
        logprobs = [choice.logprob or 0.0 for choice in answer.choices]
        return sum(logprobs) / max(len(logprobs), 1)

    return tries if len(tries) == count else sorted(tries, key=mean_logprob, reverse=True)[:count]
