"""Tokens that only tokenizer_config.json and older files name get the ids of `AutoTokenizer`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer

from featherweight.base.errors import BadInput
from featherweight.inference.text.added_tokens import ADDED, SETTINGS, SPECIAL_MAP
from featherweight.inference.text.probe import probe_texts
from featherweight.inference.text.tokenizer import ChatTokenizer

TEXT = "a <think>the fox</think> <|x|> jumps<|im_end|> 1905"
THINK = {"content": "<think>", "normalized": False, "special": False}
# Some are in the vocabulary (`the`, `Ġfox`), some in tokenizer.json, some contain each other.
CONTENTS = ("<think>", "</think>", "<|x|>", "<|x|>y", "the", "Ġfox", "<|im_end|>", "q", " z", "")


def write(folder: Path, files: dict[str, dict[str, Any]], tokenizer_json: str) -> Path:
    (folder / "tokenizer.json").write_text(tokenizer_json)
    (folder / "config.json").write_text('{"model_type": "llama", "eos_token_id": 2}')
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def byte_level_json() -> str:
    return str(tiny.tokenizer().backend_tokenizer.to_str())


def lower_case_json() -> str:
    """A tokenizer whose normalizer changes what added tokens are compared with."""
    words = ["<unk>", "▁", "a", "the", "<|im_end|>", "q", "z", "f", "o", "x"]
    vocabulary = {word: id for id, word in enumerate(words)}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    steps = [normalizers.Lowercase(), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return str(tokenizer.to_str())


def compare(folder: Path) -> None:
    """Both readers give the same ids, texts and special tokens, or both refuse."""
    try:
        reference = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception:
        return  # nothing to compare with
    tokenizer = ChatTokenizer.open(folder)
    for text in (TEXT, *probe_texts(list(reference.get_added_vocab()))):
        ids = reference(text).input_ids
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == reference.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
    assert tokenizer.vocab_size == len(reference)
    if reference.eos_token:
        assert reference.eos_token_id in tokenizer.end_ids


@pytest.mark.parametrize(
    "files",
    [
        {SETTINGS: {"added_tokens_decoder": {"300": THINK}}},
        {ADDED: {"<think>": 300, "</think>": 301}},
        {SPECIAL_MAP: {"additional_special_tokens": ["<think>", "</think>"]}},
        {SPECIAL_MAP: {"eos_token": {**THINK, "rstrip": True}, "image_token": "<|x|>"}},
        {SETTINGS: {"additional_special_tokens": ["<think>", "</think>"]}},
        {SETTINGS: {"extra_special_tokens": {"image_token": "<|x|>"}}},
        {SETTINGS: {"image_token": "<|x|>", "add_bos_token": True, "eos_token": "</think>"}},
        {SETTINGS: {"eos_token": "<|x|>", "added_tokens_decoder": {"300": THINK}}},
        {SETTINGS: {"split_special_tokens": True}},
        {SETTINGS: {"add_prefix_space": True, "legacy": False, "use_fast": False}},
        {SETTINGS: {"clean_up_tokenization_spaces": True}},
    ],
)
def test_files_that_name_tokens(files: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    files.setdefault(SETTINGS, {})["tokenizer_class"] = "PreTrainedTokenizerFast"
    compare(write(tmp_path, files, byte_level_json()))


TOKENS = st.sampled_from(CONTENTS)
FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")
FULL_TOKENS = st.fixed_dictionaries(
    {"content": TOKENS}, optional=dict.fromkeys(FLAGS, st.booleans())
)
SAVED_TOKENS = FULL_TOKENS.map(lambda token: {**token, "__type": "AddedToken"})
NAMED = {
    "bos_token": TOKENS | SAVED_TOKENS,
    "eos_token": TOKENS | SAVED_TOKENS,
    "pad_token": st.none() | TOKENS,
    "image_token": TOKENS | SAVED_TOKENS,
    "extra_special_tokens": st.lists(TOKENS | SAVED_TOKENS, max_size=3)
    | st.dictionaries(st.sampled_from(["audio_token", "eos_token"]), TOKENS, max_size=2),
    "additional_special_tokens": st.lists(TOKENS, max_size=3),
}
SETTINGS_FILES = st.fixed_dictionaries(
    {"tokenizer_class": st.just("PreTrainedTokenizerFast")},
    optional={
        **NAMED,
        "added_tokens_decoder": st.dictionaries(
            st.integers(0, 310).map(str), FULL_TOKENS, max_size=4
        ),
        "split_special_tokens": st.booleans(),
        "clean_up_tokenization_spaces": st.booleans(),
        "add_bos_token": st.booleans(),
        "add_prefix_space": st.booleans(),
    },
)
MAPS = st.fixed_dictionaries(
    {},
    optional={
        "bos_token": TOKENS | FULL_TOKENS,
        "eos_token": TOKENS | FULL_TOKENS,
        "image_token": TOKENS | FULL_TOKENS,
        "additional_special_tokens": st.lists(TOKENS, max_size=3),
        "extra_special_tokens": st.lists(TOKENS | FULL_TOKENS, max_size=3),
    },
)
FILES = st.fixed_dictionaries(
    {SETTINGS: SETTINGS_FILES},
    optional={
        SPECIAL_MAP: MAPS,
        ADDED: st.dictionaries(TOKENS, st.integers(0, 310), max_size=4),
    },
)
JSONS = (byte_level_json(), lower_case_json())


@settings(max_examples=200, deadline=None)
@given(FILES, st.sampled_from([0, 1]))
def test_random_files(files: dict[str, dict[str, Any]], kind: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        compare(write(Path(folder), files, JSONS[kind]))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({SETTINGS: {"added_tokens_decoder": []}}, "added_tokens_decoder should map"),
        ({SETTINGS: {"added_tokens_decoder": {"x": THINK}}}, "no token id"),
        ({SETTINGS: {"added_tokens_decoder": {"1": {**THINK, "special": 1}}}}, "cannot be read"),
        ({SETTINGS: {"eos_token": 3}}, "eos_token should be a token"),
        ({SETTINGS: {"extra_special_tokens": 3}}, "should be a list"),
        ({ADDED: {"<think>": "x"}}, "the id of '<think>'"),
    ],
)
def test_what_is_no_token_is_refused(
    files: dict[str, dict[str, Any]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=words):
        ChatTokenizer.open(write(tmp_path, files, byte_level_json()))
