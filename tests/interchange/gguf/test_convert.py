"""A GGUF file becomes the model it was written from, or an error that names what is wrong."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
import tiny_gguf
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from featherweight.base.errors import BadInput
from featherweight.interchange.gguf.convert import convert
from featherweight.interchange.gguf.file import GGUFFile

TEXT = "In 1905 the fox:  12 <|im_end|>\n 2024"
Spoil = Callable[[gguf.GGUFWriter, dict[str, np.ndarray]], None]


def converted(path: Path, tmp_path: Path) -> tuple[Any, Any]:
    out = tmp_path / "folder"
    out.mkdir()
    convert(path, out)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return model, AutoTokenizer.from_pretrained(out)


def llama_file(tmp_path: Path, spoil: Spoil | None = None, pre: str = "gpt-2") -> Path:
    return tiny_gguf.write(tmp_path / "tiny.gguf", *tiny.llama(), pre=pre, change=spoil)


@pytest.mark.parametrize(
    "make",
    [
        *(tiny.llama, tiny.qwen2, tiny.qwen3, tiny.gemma2, tiny.gemma3, tiny.odd),
        *(tiny.granite, tiny.olmo2, tiny.phi3),
    ],
)
def test_same_logits_same_tokens(tmp_path: Path, make: Callable[[], tuple[Any, Any]]) -> None:
    model, tokenizer = make()
    pre = "qwen2" if make is tiny.qwen2 else "gpt-2"
    read, read_tokenizer = converted(
        tiny_gguf.write(tmp_path / "m.gguf", model, tokenizer, pre=pre), tmp_path
    )
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert torch.equal(read_tokenizer(TEXT, return_tensors="pt").input_ids, ids)
    assert read.dtype == torch.float32
    # Gemma computes with 1 + w, and that is what the file holds.
    offset = 1 if "gemma" in model.config.model_type else 0
    for name, tensor in model.state_dict().items():
        added = offset if name.endswith("norm.weight") else 0
        assert torch.equal(read.state_dict()[name] + added, tensor + added), name
    assert torch.equal(read(ids).logits, model(ids).logits)


def test_tokenizer_and_generation_settings(tmp_path: Path) -> None:
    model, tokenizer = tiny.llama()
    _, read = converted(tiny_gguf.write(tmp_path / "m.gguf", model, tokenizer), tmp_path)
    for name in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id"):
        assert getattr(read, name) == getattr(tokenizer, name)
    chat = [{"role": "user", "content": "hi"}]
    said = read.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert said == tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert read.decode(read(TEXT).input_ids) == TEXT
    assert read.decode(read(TEXT).input_ids, skip_special_tokens=True) == TEXT.replace(
        "<|im_end|>", ""
    )
    settings = json.loads((tmp_path / "folder" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == tokenizer.eos_token_id
    assert "license: apache-2.0" in (tmp_path / "folder" / "README.md").read_text()


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_1, Kind.Q4_0, Kind.F16, Kind.BF16])
def test_weights_are_what_the_blocks_stand_for(tmp_path: Path, kind: Kind) -> None:
    model, tokenizer = tiny.llama()
    path = tiny_gguf.write(tmp_path / "m.gguf", model, tokenizer, kind)
    read, _ = converted(path, tmp_path)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for layer, theirs, heads in (
        ("q_proj", "attn_q", 4),
        ("k_proj", "attn_k", 2),
        ("v_proj", "attn_v", None),
    ):
        tensor = stored[f"blk.1.{theirs}.weight"]
        rows = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        mine = read.state_dict()[f"model.layers.1.self_attn.{layer}.weight"].numpy()
        assert np.array_equal(tiny_gguf.interleave(mine, heads) if heads else mine, rows)


def test_llama3_frequencies_are_recovered(tmp_path: Path) -> None:
    plain, tokenizer = tiny.llama()
    scaling = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0}
    scaling |= {
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = plain.config
    config.rope_parameters = scaling
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(plain.state_dict())
    unscaled = 500000.0 ** -(np.arange(0, 16, 2) / 16)

    def add_factors(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
        tensors["rope_freqs.weight"] = (unscaled / model.model.rotary_emb.inv_freq.numpy()).astype(
            np.float32
        )

    path = tiny_gguf.write(tmp_path / "m.gguf", model, tokenizer, change=add_factors)
    read, _ = converted(path, tmp_path)
    assert read.config.rope_parameters == scaling
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert torch.equal(read(ids).logits, model(ids).logits)


def test_rules_that_cut_text() -> None:
    from featherweight.interchange.gguf.tokenizer import RULES, pre_tokenizer

    def cut(rule: str, text: str) -> list[str]:
        return [
            piece.replace("Ġ", " ").replace("Ċ", "\n")
            for piece, _ in pre_tokenizer(RULES[rule]).pre_tokenize_str(text)
        ]

    assert cut("smollm", "x  12\n 3") == ["x", "  ", "1", "2", "\n ", "3"]
    assert cut("gpt-2", "x  12\n 3") == ["x", " ", " 12", "\n", " 3"]
    assert cut("llama-bpe", "I'M 12345 a") == ["I", "'M", " ", "123", "45", " a"]
    assert cut("qwen2", "I'M 123 a") == ["I", "'M", " ", "1", "2", "3", " a"]


def sentencepiece(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
    """Replace the tokenizer by 3 special tokens, 256 bytes and a few pieces, best first."""
    for key in [key for key in writer.kv_data[0] if key.startswith("tokenizer.")]:
        del writer.kv_data[0][key]
    pieces = ["▁", "t", "h", "e", "▁t", "he", "▁the"]
    pieces += [f"unused{i}" for i in range(300 - 259 - len(pieces))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *pieces])
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(pieces))])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(pieces))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def test_sentencepiece(tmp_path: Path) -> None:
    _, tokenizer = converted(llama_file(tmp_path, sentencepiece), tmp_path)
    assert tokenizer.tokenize("the the é") == ["▁the", "▁the", "▁", "<0xC3>", "<0xA9>"]
    assert tokenizer("the").input_ids == [1, 265]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert (
        tokenizer.decode(tokenizer("he\nthe é").input_ids, skip_special_tokens=True) == "he\nthe é"
    )


def change_value(key: str, value: Any) -> Spoil:
    def spoil(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
        writer.kv_data[0].pop(key, None)
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_uint32(key, value)

    return spoil


def change_tensor(name: str, change: Callable[[np.ndarray], np.ndarray] | None) -> Spoil:
    def spoil(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
        tensors[name] = (
            change(tensors.get(name, np.zeros(3, np.float32))) if change else tensors[name]
        )
        if change is None:
            del tensors[name]

    return spoil


def with_nan(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows.flat[5] = np.nan
    return rows


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            change_value("general.architecture", "mamba"),
            "architecture 'mamba'.*llama, qwen2, qwen3",
        ),
        (change_value("tokenizer.ggml.pre", "unheard-of"), "rule 'unheard-of'"),
        (change_value("tokenizer.ggml.model", "rwkv"), "kind 'rwkv'"),
        (change_value("tokenizer.ggml.eos_token_id", 300), "eos_token_id is 300"),
        (change_value("tokenizer.ggml.merges", None), "no tokenizer.ggml.merges"),
        (change_value("llama.embedding_length", None), "embedding_length is None"),
        (change_value("llama.attention.head_count", 0), "head_count is 0"),
        (change_value("llama.attention.layer_norm_rms_epsilon", -1.0), "a positive number"),
        (change_value("llama.expert_count", 8), "expert_count is 8"),
        (change_value("llama.rope.dimension_count", 8), "dimension_count is 8: only 16"),
        (change_value("llama.rope.scaling.type", "longrope"), "scaling.type is 'longrope'"),
        (change_value("llama.block_count", 3), "lacks tensor blk.2"),
        (change_value("llama.block_count", 1), "do not have: blk.1"),
        (change_value("split.count", 2), "split"),
        (change_value("split.count", "x"), "split"),
        (change_value("llama.residual_scale", 0.2), "llama models have no such number"),
        (change_tensor("blk.0.attn_q.weight", None), "lacks tensor blk.0.attn_q.weight"),
        (
            change_tensor("blk.0.attn_sinks.weight", lambda rows: rows),
            "do not have: blk.0.attn_sinks.weight",
        ),
        (
            change_tensor("blk.0.ffn_up.weight", lambda rows: rows[:-1]),
            r"ffn_up.weight is \(127, 64\)",
        ),
        (change_tensor("blk.1.ffn_up.weight", with_nan), "blk.1.ffn_up.weight holds 1 non-finite"),
        (change_tensor("rope_freqs.weight", lambda rows: rows), "rope_freqs"),
        (
            change_tensor("token_embd.weight", lambda rows: rows[:-1]),
            "300 tokens but fewer embeddings",
        ),
    ],
)
def test_refused(tmp_path: Path, spoil: Spoil, message: str) -> None:
    path = llama_file(tmp_path, spoil)
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=message):
        convert(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention.sliding_window", None, "sliding_window is None: a whole number"),
        ("attention.sliding_window_pattern", 0, "pattern is 0: a positive number"),
        ("attention.sliding_window_pattern", "2", "pattern is '2': a whole number"),
        ("attn_logit_softcapping", -1.0, "softcapping is -1.0: a positive number"),
        ("rope.freq_base_swa", 500.0, "freq_base_swa is 500.0: only 10000.0, that of the other"),
        ("rope.scaling.factor", -1.0, "scaling.factor is -1.0: a positive number"),
        ("attention.scale", 0.5, "attention.scale is 0.5: gemma2 models have no such number"),
        ("attention.key_length_swa", 8, "key_length_swa is 8: only 24 is supported"),
    ],
)
def test_refused_of_gemma(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = tiny_gguf.write(
        tmp_path / "m.gguf", *tiny.gemma2(), change=change_value(f"gemma2.{key}", value)
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=message):
        convert(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("logit_scale", None, "logit_scale is None: a positive number"),
        ("residual_scale", 0.0, "residual_scale is 0.0: a positive number"),
        ("rope.scaling.finetuned", 0, "finetuned is 0: only True"),
        ("attention.clamp_kqv", 8.0, "clamp_kqv is 8.0: granite models have no such number"),
    ],
)
def test_refused_of_granite(tmp_path: Path, key: str, value: Any, message: str) -> None:
    change = change_value(f"granite.{key}", value)
    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.granite(), change=change)
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=message):
        convert(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rope.dimension_count", 15, "dimension_count is 15: only 14"),
        ("rope.dimension_count", 22, "dimension_count is 22: only 20"),
        ("rope.dimension_count", 14, "rope_factors_short.weight of 7 numbers"),
        ("rope.scaling.type", "yarn", "'yarn': only none and longrope"),
        ("rope.scaling.factor", 2.0, "factor is 2.0: only 1.0"),
    ],
)
def test_refused_of_phi3(tmp_path: Path, key: str, value: Any, message: str) -> None:
    change = change_value(f"phi3.{key}", value)
    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.phi3(), change=change)
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=message):
        convert(path, tmp_path / "out")


def test_a_phi3_file_has_both_or_none_of_the_divisors(tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
        tensors.pop("rope_factors_long.weight")

    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.phi3(), change=change)
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=r"lacks tensor rope_factors_long.weight of 8 numbers"):
        convert(path, tmp_path / "out")


def test_a_granite_file_without_factors_is_run_with_those_of_llama_cpp(tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
        for key in ("attention.scale", "embedding_scale", "residual_scale"):
            writer.kv_data[0].pop(f"granite.{key}")

    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.granite(), change=change)
    config = converted(path, tmp_path)[0].config
    assert (config.embedding_multiplier, config.residual_multiplier) == (1, 1)
    assert config.attention_multiplier == pytest.approx(24**-0.5)


def test_gemmas_without_some_keys(tmp_path: Path) -> None:
    """What a file does not say is what runtimes take: the family's period, caps and bases."""

    def change(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
        for key in ("attention.sliding_window_pattern", "attn_logit_softcapping"):
            del writer.kv_data[0][f"gemma2.{key}"]
        writer.add_float32("gemma2.rope.scaling.factor", 4.0)

    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.gemma2(), change=change)
    config = converted(path, tmp_path)[0].config
    assert config.layer_types == ["sliding_attention", "full_attention"]
    assert (config.attn_logit_softcapping, config.final_logit_softcapping) == (50.0, 8.0)
    assert config.rope_parameters == {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}


def test_a_norm_that_no_weight_gives(tmp_path: Path) -> None:
    spoil = change_tensor("blk.0.attn_norm.weight", lambda rows: rows * np.float32(0.3))
    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.gemma2(), change=spoil)
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=r"attn_norm.weight: \d+ of 96 weights are no float32"):
        convert(path, tmp_path / "out")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = llama_file(tmp_path)
    whole = path.read_bytes()
    chance = random.Random(0)
    for keep in [
        0,
        3,
        4,
        7,
        8,
        15,
        23,
        len(whole) - 1,
        *(chance.randrange(len(whole)) for _ in range(60)),
    ]:
        path.write_bytes(whole[:keep])
        with pytest.raises(BadInput, match="tiny.gguf"):
            GGUFFile(path)


def test_flipped_header_bits_end_as_bad_input_or_a_readable_file(tmp_path: Path) -> None:
    path = llama_file(tmp_path)
    whole = path.read_bytes()
    end = min(entry.start for entry in GGUFFile(path).tensors.values())
    chance = random.Random(0)
    for _ in range(200):
        changed = bytearray(whole)
        changed[chance.randrange(end)] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            file = GGUFFile(path)
            for name in file.tensors:
                file.read(name)
        except BadInput:
            pass


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"GGML" + bytes(20), "not a GGUF"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**62, 0), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 2**61), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**60), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "array of type 9"),
    ],
)
def test_hostile_lengths_cost_nothing(tmp_path: Path, head: bytes, message: str) -> None:
    (tmp_path / "h.gguf").write_bytes(head)
    with pytest.raises(BadInput, match=message):
        GGUFFile(tmp_path / "h.gguf")
