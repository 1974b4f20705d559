"""Tokenizers in GGUF: text is cut as before by transformers and by llama.cpp, or the export is
refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import exporting
import gguf
import pytest
import tiny
import tiny_gguf
from llama_server import LlamaServer
from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from featherweight.interchange.gguf.file import GGUFFile
from featherweight.interchange.gguf.tokenizer import build
from featherweight.interchange.gguf.tokenizer_writer import HINT
from featherweight.quantization.formats import Int
from featherweight.workflows.export_folder import export_folder

TEXTS = ("The quick brown fox", "  In 1905: déjà vu 🙂\n\n dogs", "the wind")


def sentencepiece() -> PreTrainedTokenizerFast:
    """A BPE as sentencepiece makes them: bytes for what is unknown, spaces written out, a first
    token before texts.
    """
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=specials, show_progress=False, max_token_length=6
    )
    trained.train_from_iterator([tiny.TEXT], trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    backend = Tokenizer(
        models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizer
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(specials[:3])
    backend.post_processor = processors.TemplateProcessing(
        single="<s>:0 $A:0", pair="<s>:0 $A:0 <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def spoken() -> tuple[Any, Any]:
    shape = {**tiny.common(), "vocab_size": 384}
    config = LlamaConfig(hidden_size=64, intermediate_size=96, num_attention_heads=4, **shape)
    return tiny.make(LlamaForCausalLM, config, 0), sentencepiece()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentencepiece")
    packed = exporting.pack(folder / "packed", spoken, {"*": Int(bits=4, group=32)})
    return export_folder(packed, "gguf", folder / "m.gguf").path


def test_sentencepiece_in_transformers(file: Path) -> None:
    read, own = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name), sentencepiece()
    for text in (text.strip() for text in TEXTS):  # its reader drops one of several leading spaces
        assert read(text).input_ids == own(text).input_ids
    assert own(TEXTS[0]).input_ids[0] == own.bos_token_id


def test_sentencepiece_in_llama_cpp(file: Path) -> None:
    llama, own = LlamaServer(file), sentencepiece()
    for text in TEXTS:
        assert llama.tokens(text, add_special=True) == own(text).input_ids


def test_sentencepiece_read_again(file: Path) -> None:
    read, own = build(GGUFFile(file)), sentencepiece()
    for text in TEXTS:
        assert read(text).input_ids == own(text).input_ids


def gemma_file(path: Path) -> Path:
    """A tokenizer in the keys and spellings of llama.cpp's converter: tokens of spaces hold real
    spaces and the lowest score, and only bytes stand for tabs.
    """
    own = exporting.gemma_tokenizer()
    vocab = sorted(own.get_vocab().items(), key=lambda item: item[1])
    added = {token: entry for entry in own.added_tokens_decoder.values() for token in [str(entry)]}
    tokens, scores, types = [], [], []
    for token, id_ in vocab:
        special = token in added and added[token].special
        byte = token.startswith("<0x") or token == "\t"
        tokens.append("<0x09>" if token == "\t" else token.replace("▁", " "))
        tokens[-1] = tokens[-1] if token in added else tokens[-1].replace(" ", "▁")
        scores.append(-1000.0 if token in added else -float(id_))
        types.append(3 if special else 6 if byte else 4 if token in added else 1)
    writer = gguf.GGUFWriter(path, "gemma2")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_space_prefix(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("text", [*TEXTS, "a  b   c\t\td\te\n\n\nf<start_of_turn>fox"])
def test_a_tokenizer_of_gemma_as_llama_cpp_writes_it(tmp_path: Path, text: str) -> None:
    read, own = build(GGUFFile(gemma_file(tmp_path / "m.gguf"))), exporting.gemma_tokenizer()
    assert read(text).input_ids == own(text).input_ids
    assert read.decode(read(text).input_ids, skip_special_tokens=True) == own.decode(
        own(text).input_ids, skip_special_tokens=True
    )


def test_tokens_around_texts(tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter, tensors: dict[str, Any]) -> None:
        for name, value in (("add_bos_token", True), ("add_eos_token", True)):
            writer.kv_data[0].pop(f"tokenizer.ggml.{name}", None)
            writer.add_bool(f"tokenizer.ggml.{name}", value)

    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.llama(), change=change)
    ids = build(GGUFFile(path))("the").input_ids
    assert (ids[0], ids[-1]) == (1, 2) and ids[1:-1] == tiny.tokenizer()("the").input_ids


def test_keys_of_the_file(file: Path) -> None:
    values = GGUFFile(file).values
    assert values["tokenizer.ggml.model"] == "llama"
    assert (
        values["tokenizer.ggml.add_bos_token"] is True
        and values["tokenizer.ggml.add_space_prefix"] is True
    )
    assert (
        values["tokenizer.ggml.tokens"][383] == "[PAD383]"
        and values["tokenizer.ggml.token_type"][383] == 5
    )
    assert values["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    assert values["tokenizer.ggml.bos_token_id"] == 1 and values["tokenizer.ggml.eos_token_id"] == 2


def test_turns_end_too(tmp_path: Path) -> None:
    folder = exporting.pack(tmp_path / "packed", tiny.llama, {"*": Int(bits=4, group=32)})
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": [0, 2]}))
    values = GGUFFile(export_folder(folder, "gguf", tmp_path / "m.gguf").path).values
    assert (values["tokenizer.ggml.eos_token_id"], values["tokenizer.ggml.eot_token_id"]) == (0, 2)
    assert (
        values["tokenizer.ggml.pre"] == "gpt-2" and values["tokenizer.chat_template"] == tiny.CHAT
    )


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    def words() -> tuple[Any, Any]:
        backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
        return tiny.llama()[0], PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="a")

    folder = exporting.pack(tmp_path / "packed", words, {"*": Int(bits=4, group=32)})
    with pytest.raises(
        ValueError, match=f"a tokenizer of kind WordLevel is not written to GGUF; {HINT}"
    ):
        export_folder(folder, "gguf", tmp_path / "m.gguf")
