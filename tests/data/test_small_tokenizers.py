"""The tokenizers of small models: every byte has a token, training is deterministic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from featherweight import data
from featherweight.base.errors import BadInput, UsageError
from featherweight.data.small_tokenizers import SMALLEST_BPE, SPECIALS

TEXT = data.text("wikitext2_test")[:60_000]
ODD = "naïve 北京 🙂\n\ttwo  spaces <|endoftext|> end"


def test_bytes() -> None:
    tokenizer = data.byte_tokenizer()
    assert len(tokenizer) == SMALLEST_BPE == 259
    ids = tokenizer(ODD.replace(SPECIALS[0], "")).input_ids
    assert len(ids) == len(ODD.replace(SPECIALS[0], "").encode())
    assert tokenizer.decode(ids) == ODD.replace(SPECIALS[0], "")
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0


def test_bpe_is_saved_and_loaded(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    tokenizer = data.bpe_tokenizer(tmp_path / "text.txt", 512)
    assert len(tokenizer) == 512
    ids = tokenizer(ODD).input_ids
    assert tokenizer.decode(ids) == ODD and 0 in ids
    assert len(tokenizer(TEXT).input_ids) < 0.6 * len(TEXT)
    tokenizer.save_pretrained(tmp_path / "out")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert loaded(ODD).input_ids == ids
    messages = [{"role": "user", "content": "hi"}]
    chat = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert loaded(chat).input_ids.count(1) == 2


def test_another_process_trains_the_same_vocabulary() -> None:
    show = (
        "from featherweight import data; "
        "print(data.bpe_tokenizer(data.text('wikitext2_test')[:60_000], 600)"
        ".backend_tokenizer.to_str())"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert first.stdout == second.stdout and len(first.stdout) > 5000


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="259"):
        data.bpe_tokenizer(TEXT, 258)
    with pytest.raises(BadInput, match="longer text"):
        data.bpe_tokenizer("a b c", 512)
    with pytest.raises(BadInput, match="cannot be read"):
        data.bpe_tokenizer(tmp_path / "none.txt", 512)
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="UTF-8"):
        data.bpe_tokenizer(tmp_path / "latin.txt", 512)
