"""`generate` and `chat`: text comes out as it is made, on stdout; how fast it was, on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import BadInput, UsageError
from . import options
from .progress import progress

if TYPE_CHECKING:
    from ..inference.generation import Piece, Usage


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
    schema = None if json_schema is None else _read(json_schema, "the JSON schema")
    from ..inference.sampling import Sampling
    from ..workflows.generate_text import generate_text

    longest, stops = 256 if max_tokens is None else max_tokens, tuple(stop or ())
    sampling = Sampling(
        longest, temperature, top_k, top_p, min_p, repetition_penalty, seed, stops, logprobs
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
        ) as run,
    ):
        pieces, seconds = _show(run, json_)
        usage = run.usage
    if json_:
        typer.echo(json.dumps(_as_json(pieces, usage, seconds), ensure_ascii=False))
    elif logprobs is not None:
        _show_logprobs(pieces)
    typer.echo(speed(usage, seconds), err=True)


def chat(
    model: options.Model,
    once: Annotated[
        str | None, typer.Option(help="Ask this one question and stop.", show_default=False)
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
    from ..inference.sampling import Sampling
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
    converse(conversation, once)


def read_prompt(given: str) -> str:
    """The prompt itself, or what `@file` or `-` (stdin) holds.

    Raises UsageError or BadInput when it is no UTF-8 text.
    """
    if given == "-":
        return _decoded(sys.stdin.buffer.read(), "the prompt on stdin")
    if given.startswith("@") and len(given) > 1:
        return _read(Path(given[1:]), "the prompt")
    try:
        given.encode("utf-8")
    except UnicodeEncodeError as error:
        # Bytes of the command line that are no UTF-8 arrive as lone surrogates.
        raise UsageError(f"the prompt is not valid UTF-8 (at character {error.start})") from error
    return given


def speed(usage: Usage, seconds: Mapping[str, float]) -> str:
    """One line of counts and rates; the first token is prefill, the others are decode."""
    decoded, rate = usage.completion_tokens - 1, 0.0
    if decoded > 0 and seconds["decode"] > 0:
        rate = decoded / seconds["decode"]
    line = f"{usage.completion_tokens} tokens, {rate:.1f} tokens/s, first token after {seconds['first_token']:.3f} s"
    line += f" ({usage.prompt_tokens} in the prompt"
    line += f", {usage.cached_tokens} of them remembered)" if usage.cached_tokens else ")"
    return line + (
        f"; {usage.accepted} of {usage.guessed} guesses were right" if usage.guessed else ""
    )


def _show(run: Iterable[Piece], quiet: bool) -> tuple[list[Piece], dict[str, float]]:
    """All pieces, printed as they come, and how long the first one and the others took."""
    pieces: list[Piece] = []
    start = first = time.monotonic()
    for piece in run:
        if not pieces:
            first = time.monotonic()
        pieces.append(piece)
        if not quiet:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
    if not quiet:
        sys.stdout.write("\n")
        sys.stdout.flush()
    return pieces, {"first_token": first - start, "decode": time.monotonic() - first}


def _as_json(pieces: list[Piece], usage: Usage, seconds: Mapping[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "text": "".join(piece.text for piece in pieces),
        "finish": pieces[-1].finish,
        "tokens": [token for piece in pieces for token in piece.tokens],
        "usage": asdict(usage),
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
    }
    choices = [choice for piece in pieces for choice in piece.choices]
    if choices and choices[0].logprob is not None:
        found["logprobs"] = [{"logprob": choice.logprob, "top": choice.top} for choice in choices]
    return found


def _show_logprobs(pieces: list[Piece]) -> None:
    for choice in (choice for piece in pieces for choice in piece.choices):
        others = "  ".join(f"{token} {logprob:.3f}" for token, logprob in choice.top)
        typer.echo(f"{choice.token}\t{choice.logprob:.3f}\t{others}".rstrip())


def _read(path: Path, what: str) -> str:
    try:
        return _decoded(path.read_bytes(), f"{what} in {path}")
    except OSError as error:
        raise BadInput(
            f"{what} cannot be read from {path}: {(error.strerror or str(error)).lower()}"
        ) from error


def _decoded(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{what} is not UTF-8 text: byte 0x{content[error.start]:02x} at {error.start}"
        ) from error
