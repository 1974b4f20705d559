"""The shell's `generate`: one answer of a model to one prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..base.sampling import Sampling
from ..inference import ChatTokenizer, Generation, PrefixCache, generate
from ..interchange.source import Source
from .engines import open_engine

# No token has more characters. A prompt with more characters than this times the context is refused
# before it is tokenized, because tokenizing it would take long.
MAX_TOKEN_LENGTH = 256


@contextmanager
def generate_text(
    model: str | Path,
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
    """A context manager that yields the answer to `prompt` as a `Generation`. The answer is
    computed while it is read; the model is closed at the end of the block.

    Args: model, an alias, folder, GGUF file or hub id; sampling, how tokens are chosen; fit,
    shorten the answer when fewer than `max_tokens` positions of the context are free (instead of
    raising UsageError); chat, write the prompt as a user's turn with the chat template (None: if
    the model has one); runtime as in `open_engine`; lookup, the number of draft tokens of prompt
    lookup; json_schema, the text of a schema that the answer must follow; cache_dir, a folder where
    processed prompts are stored for later runs; listener, receives the events of loading. Raises
    UsageError for an empty or too long prompt and impossible settings, BadInput when there is no
    such model.
    """
    if not prompt.strip():
        raise UsageError("the prompt is empty; give it some text")
    cache = None if cache_dir is None else PrefixCache(cache_dir)
    engine, tokenizer = open_engine(Source.find(model, listener), runtime, listener=listener)
    with ExitStack() as stack:
        stack.callback(engine.close)
        if len(prompt) > MAX_TOKEN_LENGTH * engine.context:
            raise UsageError(
                f"the prompt has {len(prompt)} characters; "
                f"the model's context is {engine.context} tokens; shorten it"
            )
        ids = _prompt_ids(tokenizer, prompt, chat)
        if fit and len(ids) < engine.context:
            sampling = replace(
                sampling, max_tokens=min(sampling.max_tokens, engine.context - len(ids))
            )
        mask = None
        if json_schema is not None:
            from ..inference.text.grammars import Grammars

            mask = Grammars(tokenizer, engine.vocab_size).json_schema(json_schema)
        generation = generate(
            engine, tokenizer, ids, sampling, cache=cache, lookup=lookup, mask=mask
        )
        stack.callback(generation.close)
        yield generation


def _prompt_ids(tokenizer: ChatTokenizer, prompt: str, chat: bool | None) -> list[int]:
    if chat is False or (chat is None and not tokenizer.has_template):
        return tokenizer.encode(prompt)
    if not tokenizer.has_template:
        raise UsageError("this model has no chat template; use --raw")
    return tokenizer.chat([{"role": "user", "content": prompt}])
