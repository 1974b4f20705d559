"""`generate` and `chat`: the text goes to stdout while it is generated, its speed to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import BadInput, UsageError
from . import options
from .progress import progress

if TYPE_CHECKING:
    from ..inference import TextDelta, Usage


def generate(
    model: options.Model,
    prompt: options.Prompt,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = 0.7,
    top_k: options.TopK = 0,
    top_p: options.TopP = 0.95,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    stop: options.Stop = None,
    seed: options.FreeSeed = None,
    logprobs: options.Logprobs = None,
    lookup: options.Lookup = 0,
    json_schema: options.JsonSchema = None,
    runtime: options.Runtime = "auto",
    chat: options.Chat = None,
    cache_dir: options.CacheDir = None,
    json_: options.JsonAtTheEnd = False,
) -> None:
    """Answer PROMPT once, printing the text as it comes."""
    content = read_prompt(prompt)
    schema = None if json_schema is None else _read_file(json_schema, "the JSON schema")
    from ..base.sampling import Sampling
    from ..workflows.generate_text import generate_text

    sampling = Sampling(
        256 if max_tokens is None else max_tokens,
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        seed,
        tuple(stop or ()),
        logprobs,
    )
    with (
        progress() as listener,
        generate_text(
            model,
            content,
            sampling,
            fit=max_tokens is None,
            chat=chat,
            runtime=runtime,
            lookup=lookup,
            json_schema=schema,
            cache_dir=cache_dir,
            listener=listener,
        ) as generation,
    ):
        deltas, seconds = _show(generation, json_)
        usage = generation.usage
    if json_:
        typer.echo(json.dumps(_as_json(deltas, usage, seconds), ensure_ascii=False))
    elif logprobs is not None:
        _show_logprobs(deltas)
    typer.echo(speed(usage, seconds), err=True)


def chat(
    model: options.Model,
    question: Annotated[
        str | None,
        typer.Option("--once", help="Ask this one question and stop.", show_default=False),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="What the model is told first.", show_default=False)
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 512,
    temperature: options.Temperature = 0.7,
    top_k: options.TopK = 0,
    top_p: options.TopP = 0.95,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    lookup: options.Lookup = 0,
    runtime: options.Runtime = "auto",
    cache_dir: options.CacheDir = None,
) -> None:
    """Talk to a model in the terminal; Ctrl-C stops an answer, Ctrl-D or /quit ends."""
    from ..base.sampling import Sampling
    from ..workflows.chat_folder import chat_folder
    from .conversation import converse

    sampling = Sampling(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed)
    with progress() as listener:
        conversation = chat_folder(
            model,
            sampling,
            system=system,
            runtime=runtime,
            lookup=lookup,
            cache_dir=cache_dir,
            listener=listener,
        )
    converse(conversation, question)


def read_prompt(argument: str) -> str:
    """The prompt itself, or what `@file` or `-` (stdin) holds.

    Raises UsageError or BadInput when it is no UTF-8 text.
    """
    if argument == "-":
        return _decode(sys.stdin.buffer.read(), "the prompt on stdin")
    if argument.startswith("@") and len(argument) > 1:
        return _read_file(Path(argument[1:]), "the prompt")
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError as error:
        # Bytes of the command line that are no UTF-8 arrive as lone surrogates.
        raise UsageError(f"the prompt is not valid UTF-8 (at character {error.start})") from error
    return argument


def speed(usage: Usage, seconds: Mapping[str, float]) -> str:
    """One line of counts and rates; the first token counts as prefill, the others as decode."""
    num_decoded, rate = usage.completion_tokens - 1, 0.0
    if num_decoded > 0 and seconds["decode"] > 0:
        rate = num_decoded / seconds["decode"]
    line = f"{usage.completion_tokens} tokens, {rate:.1f} tokens/s, "
    line += f"first token after {seconds['first_token']:.3f} s"
    line += f" ({usage.prompt_tokens} in the prompt"
    line += f", {usage.cached_tokens} of them remembered)" if usage.cached_tokens else ")"
    if usage.draft_tokens:
        line += f"; {usage.accepted_tokens} of {usage.draft_tokens} guesses were right"
    return line


def _show(generation: Iterable[TextDelta], quiet: bool) -> tuple[list[TextDelta], dict[str, float]]:
    """All deltas, printed while they come, and the seconds of the first one and of the others."""
    deltas: list[TextDelta] = []
    start = first = time.monotonic()
    for delta in generation:
        if not deltas:
            first = time.monotonic()
        deltas.append(delta)
        if not quiet:
            sys.stdout.write(delta.text)
            sys.stdout.flush()
    if not quiet:
        sys.stdout.write("\n")
        sys.stdout.flush()
    return deltas, {"first_token": first - start, "decode": time.monotonic() - first}


def _as_json(deltas: list[TextDelta], usage: Usage, seconds: Mapping[str, float]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "text": "".join(delta.text for delta in deltas),
        "finish": deltas[-1].finish,
        "tokens": [token for delta in deltas for token in delta.tokens],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "guessed": usage.draft_tokens,
            "accepted": usage.accepted_tokens,
        },
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
    }
    choices = [choice for delta in deltas for choice in delta.choices]
    if choices and choices[0].logprob is not None:
        answer["logprobs"] = [{"logprob": choice.logprob, "top": choice.top} for choice in choices]
    return answer


def _show_logprobs(deltas: list[TextDelta]) -> None:
    for choice in (choice for delta in deltas for choice in delta.choices):
        top = "  ".join(f"{token} {logprob:.3f}" for token, logprob in choice.top)
        typer.echo(f"{choice.token}\t{choice.logprob:.3f}\t{top}".rstrip())


def _read_file(path: Path, title: str) -> str:
    """The text of a file; `title` is what the error calls it."""
    try:
        return _decode(path.read_bytes(), f"{title} in {path}")
    except OSError as error:
        raise BadInput(
            f"{title} cannot be read from {path}: {(error.strerror or str(error)).lower()}"
        ) from error


def _decode(content: bytes, title: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{title} is not UTF-8 text: byte 0x{content[error.start]:02x} at {error.start}"
        ) from error
