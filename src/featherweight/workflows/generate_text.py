"""The shell's `generate`: one answer of a model folder to one prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..inference import ChatTokenizer, Generation, Sampling, generate
from ..inference.prefix_cache import PrefixCache
from .engines import open_engine

LONGEST_TOKEN = 256  # characters; a prompt of more than this times the context is refused before it is tokenised


@contextmanager
def generate_text(
    model: str,
    prompt: str,
    sampling: Sampling,
    *,
    fit: bool = False,
    chat: bool | None = None,
    runtime: str = "auto",
    lookup: int = 0,
    json_schema: str | None = None,
    cache_dir: Path | None = None,
    listener: Listener = silent,
) -> Iterator[Generation]:
    """The answer to `prompt`, computed as it is read; the model is closed when the block ends.

    `fit`: give fewer than `max_tokens` when the context leaves less, instead of refusing. `chat`:
    write the prompt as a user's turn through the chat template (None: if the model has one).
    `cache_dir`: where prompts are remembered.
    """
    if not prompt.strip():
        raise UsageError("the prompt is empty; give it some text")
    cache = None if cache_dir is None else PrefixCache(cache_dir)
    engine, text = open_engine(model, runtime, listener=listener)
    with ExitStack() as stack:
        stack.callback(engine.close)
        if len(prompt) > LONGEST_TOKEN * engine.context:
            raise UsageError(
                f"the prompt has {len(prompt)} characters; the model's context is {engine.context} "
                "tokens; shorten it"
            )
        ids = _ids(text, prompt, chat)
        if fit and len(ids) < engine.context:
            sampling = replace(
                sampling, max_tokens=min(sampling.max_tokens, engine.context - len(ids))
            )
        mask = None
        if json_schema is not None:
            from ..inference.text.json_schema import JsonSchema

            mask = JsonSchema(text, json_schema, engine.vocab_size)
        run = generate(engine, text, ids, sampling, cache=cache, lookup=lookup, mask=mask)
        stack.callback(run.close)
        yield run


def _ids(text: ChatTokenizer, prompt: str, chat: bool | None) -> list[int]:
    if chat is False or (chat is None and not text.has_template):
        return text.encode(prompt)
    if not text.has_template:
        raise UsageError("this model has no chat template; use --raw")
    return text.chat([{"role": "user", "content": prompt}])
