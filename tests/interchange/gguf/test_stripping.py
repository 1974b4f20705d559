"""Added tokens that take the spaces after them: read and written as llama.cpp reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import exporting
import pytest
import tiny
from llama_server import LlamaServer
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from featherweight.base.errors import UsageError
from featherweight.interchange.gguf.convert import convert
from featherweight.interchange.gguf.file import GGUFFile
from featherweight.interchange.gguf.stripping import KEEPING_TOKENS, exported_name, takes_spaces
from featherweight.quantization.formats import Int
from featherweight.workflows.export_folder import export_folder

TEXTS = ("<|user|>\n the fox<|im_end|>  \n\n<|endoftext|> fox", "<s> the <s>the</s> fox")
NEW_TOKENS = ("<unk>", "<s>", "</s>", "<|user|>")


def phi3_tokenizer(**flags: bool) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with the tokens of Phi-3; `flags` of <|user|> differ."""
    tokenizer = tiny.tokenizer()
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    entries = description["added_tokens"]
    entries += [
        {**entries[0], "id": len(tokenizer) + number, "content": token}
        for number, token in enumerate(NEW_TOKENS)
    ]
    for entry in entries:
        entry["rstrip"] = entry["content"] not in KEEPING_TOKENS
    entries[-1].update(flags)
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)),
        bos_token="<s>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        pad_token="<|im_end|>",
    )
    made.chat_template = tiny.CHAT
    return made


def phi3() -> tuple[Any, Any]:
    tokenizer = phi3_tokenizer()
    return exporting.phi3(vocab_size=len(tokenizer))[0], tokenizer


def test_phi3_tokens_are_those_of_llama_cpp_under_any_name(tmp_path: Path) -> None:
    folder = exporting.pack(tmp_path / "light", phi3, {"*": Int(bits=8)}, tables=None)
    path = export_folder(folder, "gguf", tmp_path / "m.gguf").path
    assert GGUFFile(path).values["general.name"] == "phi-3 light"
    (tmp_path / "back").mkdir()
    convert(path, tmp_path / "back")
    expected, read = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("light", "back"))
    pytest.importorskip("xllamacpp")
    server = LlamaServer(path)
    for text in TEXTS:
        ids = expected(text, add_special_tokens=False).input_ids
        assert read(text, add_special_tokens=False).input_ids == ids
        assert server.tokens(text) == ids


def test_names_of_models_whose_tokens_take_no_spaces() -> None:
    assert exported_name(tiny.tokenizer(), "Phi-3-mini-light") == "Phi 3-mini-light"
    assert exported_name(tiny.tokenizer(), "my-phi3") == "my-phi 3"
    assert exported_name(phi3_tokenizer(), "Phi-3-mini") == "Phi-3-mini"
    assert takes_spaces("my PHI3", "<|user|>") and not takes_spaces("my PHI3", "<s>")
    assert not takes_spaces("phi 3", "<|user|>") and not takes_spaces(None, "<|user|>")


@pytest.mark.parametrize("flags", [{"lstrip": True}, {"rstrip": False}])
def test_other_tokens_that_take_spaces_are_refused(flags: dict[str, bool]) -> None:
    with pytest.raises(UsageError, match=r"those of Phi-3 \('<\|user\|>' differs\); --to hf"):
        exported_name(phi3_tokenizer(**flags), "phi-3")
