"""Tokenizers that go together, or do not, and small models that read them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import tiny
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from featherweight.data.small_tokenizers import bpe_tokenizer, byte_tokenizer
from featherweight.models.scratch import scratch_model

PLAY = (
    "there is another morning, and the mother reads there: the theatre opens at noon, then the "
    "others rather bathe together. Whether the weather is there or not, the feather is lighter. "
)

TEXT = "The mother is there, the theatre and the \U0001f600 other feather; \u4e2d\u6587 bathes."


@lru_cache
def fine() -> Any:
    """A BPE of tiny's text."""
    return bpe_tokenizer(tiny.TEXT * 4, 300)


@lru_cache
def coarse() -> Any:
    """A BPE of another text and size; most of its merges are others."""
    return bpe_tokenizer(PLAY * 4, 325)


@lru_cache
def single_bytes() -> Any:
    return byte_tokenizer()


@lru_cache
def sentencepiece() -> Any:
    """As Llama 2's: a space before the text, U+2581 for spaces, bytes for what has no token."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [*"\u2581abcdefghijklmnopqrstuvwxyzAT.,", "th", "the", "\u2581the", "er"]
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the"), ("e", "r")]
    backend = Tokenizer(
        models.BPE(
            {piece: id for id, piece in enumerate(pieces)},
            merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def lower_case() -> Any:
    """A tokenizer that forgets capitals."""
    tokenizer = bpe_tokenizer(PLAY * 4, 310)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def only_words() -> Any:
    """A tokenizer with unknown words."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, " ": 2, "fox": 3}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", eos_token="[UNK]")


def permuted(tokenizer: Any, order: list[int]) -> Any:
    """The same tokens, of which `id` becomes `order[id]`."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description["model"]["vocab"] = {
        piece: order[id] for piece, id in description["model"]["vocab"].items()
    }
    for token in description["added_tokens"]:
        token["id"] = order[token["id"]]
    description["added_tokens"].sort(key=lambda token: token["id"])
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)),
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
    )


def model(tokenizer: Any, seed: int = 0, width: int = 16) -> Any:
    """Random weights, large enough that the distributions are far from uniform."""
    made = scratch_model(len(tokenizer), width=width, blocks=1, heads=2, context=128, seed=seed)
    for parameter in made.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(3)
    return made.eval()


COMBINATIONS = [
    (fine, coarse),
    (coarse, fine),
    (fine, single_bytes),
    (sentencepiece, fine),
    (coarse, sentencepiece),
]
