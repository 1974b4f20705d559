"""Does the official OpenAI client hold a whole conversation with `fw serve`?

A light Qwen2.5-Coder-0.5B-Instruct (`--folder`; else 4 bits, made first) is served by a process of
its own, and the client has twelve turns with it: tools (complete, streamed, required, named, with
results), log-probabilities, JSON schemas and streaming. Each answer is sent back as the client
holds it, with every field, so the conversation grows by what the server gave. Each turn has its own
check: what the protocol promises must hold exactly (arguments follow their schema, a stream is the
complete answer cut in pieces, bytes add up to the text); what a small model understands is judged
leniently, and only where it decides that tools work at all.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import light_coder
from common import Record, main, new_record, parser
from openai import OpenAI
from pydantic import BaseModel
from servers import serve

CONTEXT = 4096
SYSTEM = "You are a helpful assistant. Use the functions when they help; answer briefly."
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the current weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two integers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
                "additionalProperties": False,
            },
        },
    },
]


class Person(BaseModel):
    """What an answer after a schema must hold."""

    name: str
    age: int
    role: Literal["engineer", "painter"]


class Talk:
    """The conversation so far, and what one turn asks."""

    def __init__(self, client: OpenAI, model: str, seed: int) -> None:
        self.client, self.model, self.seed = client, model, seed
        self.messages: list[Any] = [{"role": "system", "content": SYSTEM}]
        self.tokens = 0

    def ask(self, question: str | None, **fields: Any) -> Any:
        """The first answer of the next turn, which is remembered as the client holds it."""
        completion = self.create(question, **fields)
        self.tokens = completion.usage.completion_tokens
        self.messages.append(completion.choices[0].message.model_dump(warnings=False))
        return completion.choices[0]

    def stream(self, question: str | None, **fields: Any) -> tuple[Any, list[Any]]:
        """The same as a stream: the answer as the client puts it together, and the chunks."""
        if question is not None:
            self.messages.append({"role": "user", "content": question})
        with self.client.chat.completions.stream(
            **self.fields(**fields), stream_options={"include_usage": True}
        ) as stream:
            chunks = [event.chunk for event in stream if event.type == "chunk"]
            completion = stream.get_final_completion()
        assert completion.usage is not None
        self.tokens = completion.usage.completion_tokens
        self.messages.append(completion.choices[0].message.model_dump(warnings=False))
        return completion.choices[0], chunks

    def create(self, question: str | None, **fields: Any) -> Any:
        """A completion that is not remembered, although its question is."""
        if question is not None:
            self.messages.append({"role": "user", "content": question})
        return self.client.chat.completions.create(**self.fields(**fields))

    def fields(self, **fields: Any) -> dict[str, Any]:
        """All fields of a request, among them many that clients send and that change nothing."""
        return {
            "model": self.model,
            "messages": self.messages,
            "max_completion_tokens": 200,
            "temperature": 0,
            "seed": self.seed,
            "user": "benchmark",
            "metadata": {"benchmark": "clients"},
            "store": False,
            **fields,
        }

    def give_results(self, choice: Any, **results: str) -> None:
        """Answer the calls of a turn."""
        for call in choice.message.tool_calls:
            content = results.get(call.function.name, "nothing")
            self.messages.append({"role": "tool", "tool_call_id": call.id, "content": content})


def check_arguments(call: Any) -> dict[str, Any]:
    """The arguments of a call, which follow its schema."""
    arguments: dict[str, Any] = json.loads(call.function.arguments)
    if call.function.name == "add":
        assert set(arguments) == {"a", "b"}, arguments
        assert all(type(value) is int for value in arguments.values()), arguments
    else:
        assert set(arguments) == {"city", "unit"}, arguments
        assert arguments["unit"] in ("celsius", "fahrenheit"), arguments
    return arguments


def greet(talk: Talk) -> None:
    choice = talk.ask("Hello! Say hello in one short sentence.")
    assert choice.finish_reason == "stop", choice
    assert choice.message.content, choice


def stream_text(talk: Talk) -> None:
    complete = talk.create("Name three colours.").choices[0].message.content
    choice, chunks = talk.stream(None)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == choice.message.content == complete, (text, complete)
    assert len(chunks) > 5, len(chunks)
    assert chunks[-1].usage.completion_tokens > 0, chunks[-1]


def call_tool(talk: Talk) -> None:
    choice = talk.ask(
        "Use get_weather to look up the weather in Paris in celsius.",
        tools=TOOLS,
        tool_choice="auto",
    )
    assert choice.finish_reason == "tool_calls", choice
    assert choice.message.tool_calls[0].function.name == "get_weather", choice
    assert "Paris" in check_arguments(choice.message.tool_calls[0])["city"], choice
    talk.give_results(choice, get_weather='{"temperature": 21, "sky": "clear"}')


def use_result(talk: Talk) -> None:
    choice = talk.ask(None, tools=TOOLS, tool_choice="none")
    assert choice.finish_reason == "stop", choice
    assert "21" in choice.message.content, choice


def stream_call(talk: Talk) -> None:
    question = "What is 17 plus 25? Use the function add."
    complete = talk.create(question, tools=TOOLS, tool_choice="required").choices[0]
    choice, chunks = talk.stream(None, tools=TOOLS, tool_choice="required")
    assert choice.finish_reason == "tool_calls", choice
    parts = [part for c in chunks if c.choices for part in c.choices[0].delta.tool_calls or []]
    assert len(parts) > 3, parts
    (call,) = choice.message.tool_calls
    assert call.function.arguments == complete.message.tool_calls[0].function.arguments
    assert call.function.name == "add", call
    assert check_arguments(call) == {"a": 17, "b": 25}, call
    talk.give_results(choice, add="42")


def stream_result(talk: Talk) -> None:
    choice, _ = talk.stream(None, tools=TOOLS, tool_choice="none")
    assert choice.finish_reason == "stop", choice
    assert "42" in choice.message.content, choice


def logprobs(talk: Talk) -> None:
    emoji = "\N{PERFORMING ARTS} \N{DNA DOUBLE HELIX} \N{YO-YO}"
    choice = talk.ask(f"Repeat exactly: {emoji}", logprobs=True, top_logprobs=5)
    entries = choice.logprobs.content
    content = b"".join(bytes(entry.bytes) for entry in entries).decode()
    assert content == choice.message.content, (content, choice.message.content)
    for entry in entries:
        assert len({top.token for top in entry.top_logprobs}) == 5, entry
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1 + 1e-5, entry
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs), entry
    assert any(b"\xf0" in bytes(entry.bytes) for entry in entries), content


def json_schema(talk: Talk) -> None:
    question = "Ada is an engineer and 36 years old. Write name, age and role as JSON."
    talk.messages.append({"role": "user", "content": question})
    completion = talk.client.chat.completions.parse(**talk.fields(response_format=Person))
    assert completion.usage is not None
    talk.tokens = completion.usage.completion_tokens
    person = completion.choices[0].message.parsed
    assert person == Person(name="Ada", age=36, role="engineer"), person
    talk.messages.append(completion.choices[0].message.model_dump(warnings=False))


def stream_json_schema(talk: Talk) -> None:
    question = "Frida is a painter and 47 years old. Write name, age and role as JSON."
    choice, _ = talk.stream(question, response_format=Person)
    assert choice.message.parsed == Person(name="Frida", age=47, role="painter"), choice


def json_object(talk: Talk) -> None:
    choice = talk.ask(
        "Write a JSON object with the keys city and country for Rome.",
        response_format={"type": "json_object"},
    )
    assert isinstance(json.loads(choice.message.content), dict), choice


def named_tool(talk: Talk) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    choice = talk.ask(
        "And how warm is it in Oslo?",
        tools=TOOLS,
        tool_choice=named,
        parallel_tool_calls=False,
        logprobs=True,
    )
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather", call
    assert "Oslo" in check_arguments(call)["city"], call
    assert choice.logprobs.content, choice
    talk.give_results(choice, get_weather='{"temperature": 4, "sky": "snow"}')


def two_choices(talk: Talk) -> None:
    fields: dict[str, Any] = {"tools": TOOLS, "tool_choice": "none", "temperature": 0.8}
    completion = talk.create(None, n=2, **fields)
    choice = talk.ask(None, **fields)
    texts = [other.message.content for other in completion.choices]
    assert [other.index for other in completion.choices] == [0, 1], completion
    assert choice.message.content == texts[0], (choice, texts)
    assert not choice.message.tool_calls, choice


Turn = Callable[[Talk], None]
TURNS: dict[str, tuple[Turn, tuple[str, ...]]] = {
    # The first turn, because a model of this size calls by its own choice only then.
    "a call": (call_tool, ("tools",)),
    "its result": (use_result, ("tools",)),
    "greeting": (greet, ()),
    "text in a stream": (stream_text, ("streaming",)),
    "a required call in a stream": (stream_call, ("tools", "streaming")),
    "its result in a stream": (stream_result, ("tools", "streaming")),
    "log-probabilities": (logprobs, ("logprobs",)),
    "a JSON schema": (json_schema, ("JSON schema",)),
    "a JSON schema in a stream": (stream_json_schema, ("JSON schema", "streaming")),
    "a JSON object": (json_object, ("JSON schema",)),
    "a named call with log-probabilities": (named_tool, ("tools", "logprobs")),
    "two choices after a result": (two_choices, ("tools",)),
}


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("clients: the OpenAI client in a conversation", arguments, num_seeds=1)
    folder = arguments.folder or light_coder.light(arguments.preset, arguments.quick)
    with (
        serve(folder, "--context", str(CONTEXT), "--slots", "2") as (_, url),
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600) as client,
    ):
        model = client.models.list().data[0]
        facts: Any = (model.model_extra or {})["featherweight"]
        record.facts |= {"model": model.id, "engine": facts["description"], "bits": facts["bits"]}
        talk = Talk(client, model.id, arguments.seeds[0])
        for name, (turn, kinds) in TURNS.items():
            start = time.monotonic()
            problem = problem_of(turn, talk)
            record.add(
                turn=name,
                kinds=" ".join(kinds),
                ok=problem is None,
                tokens=talk.tokens,
                seconds=time.monotonic() - start,
                problem=problem or "",
            )
    record.check("turns of a real openai client", float(len(record.rows)), at_least=12)
    failures = {row["turn"] for row in record.rows if not row["ok"]}
    record.check("turns that failed in the twelve-turn conversation", len(failures), at_most=0)
    for kind in ("tools", "logprobs", "JSON schema", "streaming"):
        names = [name for name, (_, kinds) in TURNS.items() if kind in kinds]
        num_failures = sum(name in failures for name in names)
        record.check(f"failures of {len(names)} turns with {kind}", num_failures, at_most=0)
    return record


def problem_of(turn: Turn, talk: Talk) -> str | None:
    """What is wrong with a turn; the conversation goes on after it."""
    num_messages = len(talk.messages)
    try:
        turn(talk)
    except Exception as error:
        if len(talk.messages) > num_messages and talk.messages[-1]["role"] == "user":
            talk.messages.append({"role": "assistant", "content": "I do not know."})
        return f"{type(error).__name__}: {error}"[:500]
    return None


if __name__ == "__main__":
    flags = parser(__doc__, light_coder.PRESETS)
    flags.add_argument("--folder", type=Path, help="a model folder; without one, it is made first")
    main(run, flags)
