"""Rotary settings, windows, splitting rules and split files as other programs write them: read as
llama.cpp reads them, or refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporting
import gguf
import numpy as np
import pytest
import tiny
import tiny_gguf
import torch
from llama_server import LlamaServer
from transformers import AutoModelForCausalLM, AutoTokenizer

import featherweight as fw
from featherweight.base.errors import BadInput
from featherweight.inference.text.probe import PROBE, TEXTS
from featherweight.interchange.gguf.convert import convert
from featherweight.interchange.gguf.file import GGUFFile
from featherweight.interchange.locating import find_folder

YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 128,
}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
READ_YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
READINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"rope.scaling.factor": 4.0}, LINEAR),
    ({"rope.scaling.factor": 4.0, "rope.scaling.type": "none"}, PLAIN),
    ({"rope.scaling.factor": 0.0}, PLAIN),
    ({"rope.scaling.type": "linear"}, PLAIN),
    ({"rope.scale_linear": 4.0}, LINEAR),
    ({"rope.scale_linear": 4.0, "rope.scaling.type": "none"}, PLAIN),
    ({"rope.scale_linear": 2.0, "rope.scaling.factor": 4.0}, LINEAR),
    ({"attention.sliding_window": 512}, PLAIN),
    (YARN, READ_YARN),
    (
        {**YARN, "rope.scaling.original_context_length": 0},
        {**READ_YARN, "original_max_position_embeddings": 512},
    ),
    (
        {**YARN, "rope.scaling.attn_factor": 1.25},
        {**READ_YARN, "attention_factor": 1.25 * (1 + np.log(4) / 10)},
    ),
]


def with_values(values: dict[str, Any]) -> tiny_gguf.Change:
    """Write `values` under the name of the architecture; a tensor for an array."""

    def change(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
        for key, value in values.items():
            if isinstance(value, np.ndarray):
                tensors[key] = value
                continue
            writer.kv_data[0].pop(f"llama.{key}", None)
            add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}
            add[type(value)](f"llama.{key}", value)

    return change


def converted(path: Path, tmp_path: Path) -> Any:
    (tmp_path / "folder").mkdir()
    convert(path, tmp_path / "folder")
    return AutoModelForCausalLM.from_pretrained(tmp_path / "folder")


@pytest.mark.parametrize(("values", "rope"), READINGS)
def test_rotary_settings(values: dict[str, Any], rope: dict[str, Any], tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.llama(), change=with_values(values))
    assert converted(path, tmp_path).config.rope_parameters == pytest.approx(rope)


@torch.no_grad()
@pytest.mark.parametrize("values", [values for values, _ in READINGS])
def test_logits_are_those_of_llama_cpp(values: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.llama(), change=with_values(values))
    ids = torch.randint(3, 290, (1, 40), generator=torch.Generator().manual_seed(0))
    ours = converted(path, tmp_path)(ids).logits[0].double().log_softmax(-1)
    theirs = torch.from_numpy(LlamaServer(path).log_probabilities(ids[0].tolist(), 300))
    # Another scaling is at 1e-2 or more; keys and values in fp16 give 1e-6.
    assert (ours.exp() * (ours - theirs)).sum(-1).mean() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 8])
def test_phi3_files_keep_their_window_which_llama_cpp_does_not_apply(
    window: int | None, tmp_path: Path
) -> None:
    """Exports with a window are refused for this reason (`metadata_writer`)."""
    pytest.importorskip("xllamacpp")
    path = tiny_gguf.write(tmp_path / "m.gguf", *exporting.phi3(sliding_window=window))
    model = converted(path, tmp_path)
    assert model.config.sliding_window == window
    ids = torch.randint(3, 290, (1, 40), generator=torch.Generator().manual_seed(0))
    ours = model(ids).logits[0].double().log_softmax(-1)
    theirs = torch.from_numpy(LlamaServer(path).log_probabilities(ids[0].tolist(), 300))
    kl = (ours.exp() * (ours - theirs)).sum(-1).mean()
    assert kl < 1e-5 if window is None else kl > 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rope.scaling.type": "yarn"}, "scale_linear is None: a positive number"),
        ({"rope.scaling.type": "longrope"}, "'longrope': only none, linear and yarn"),
        ({"rope.scaling.type": "dynamic"}, "'dynamic': only none, linear and yarn"),
        ({**YARN, "rope.scaling.yarn_beta_fast": 8.0}, "beta_fast is 8.0: only 32.0"),
        ({**YARN, "rope.scaling.yarn_ext_factor": 0.5}, "ext_factor is 0.5: only 1.0"),
        ({"rope.scaling.factor": -2.0}, "factor is -2.0: a positive number"),
        ({"attention.sliding_window": 511}, "sliding_window is 511: only 0"),
        ({"rope_factors_long.weight": np.ones(8, np.float32)}, "rope_factors_long"),
        ({"rope_factors_short.weight": np.ones(8, np.float32)}, "rope_factors_short"),
    ],
)
def test_refused_by_name(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.llama(), change=with_values(values))
    with pytest.raises(BadInput, match=message):
        converted(path, tmp_path)


def test_yarn_of_a_family_with_windows_is_refused(tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
        writer.add_string("gemma2.rope.scaling.type", "yarn")
        writer.add_float32("gemma2.rope.scaling.factor", 4.0)

    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.gemma2(), change=change)
    with pytest.raises(BadInput, match="'yarn': only none and linear"):
        converted(path, tmp_path)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "llama3", "llama-v3"])
def test_rules_cut_as_in_llama_cpp(pre: str, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.llama(), pre=pre)
    converted(path, tmp_path)
    tokenizer, server = AutoTokenizer.from_pretrained(tmp_path / "folder"), LlamaServer(path)
    for text in TEXTS:
        assert server.tokens(text) == tokenizer(text, add_special_tokens=False).input_ids, text


@pytest.mark.parametrize("pre", ["qwen2", "deepseek-r1-qwen", "megrez"])
def test_qwens_rule_has_other_names(pre: str, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    model, tokenizer = tiny.qwen2()
    path = tiny_gguf.write(tmp_path / "m.gguf", model, tokenizer, pre=pre)
    converted(path, tmp_path)
    tokenizer, server = AutoTokenizer.from_pretrained(tmp_path / "folder"), LlamaServer(path)
    for text in TEXTS:
        if "\u0301" in text:  # llama.cpp does not compose characters
            continue
        assert server.tokens(text) == tokenizer(text, add_special_tokens=False).input_ids, text


@pytest.mark.parametrize("pre", ["default", None])
def test_a_file_that_names_no_rule_is_refused(pre: str | None, tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
        writer.kv_data[0].pop("tokenizer.ggml.pre")
        if pre is not None:
            writer.add_tokenizer_pre(pre)

    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.llama(), change=change)
    with pytest.raises(BadInput, match=f"the rule {pre!r} .tokenizer.ggml.pre."):
        converted(path, tmp_path)


def split(path: Path, folder: Path, count: int = 3) -> list[Path]:
    """The GGUF file at `path` as `count` parts, written as llama-gguf-split does."""
    reader = gguf.GGUFReader(path)
    shares = np.array_split(np.arange(len(reader.tensors)), count)
    paths = []
    for number, share in enumerate(shares):
        part = folder / f"m-{number + 1:05}-of-{count:05}.gguf"
        writer = gguf.GGUFWriter(part, "llama")
        if number == 0:
            copy_values(reader, writer)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in (reader.tensors[index] for index in share):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(part)
    return paths


def copy_values(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            sub_type = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    whole = tiny_gguf.write(tmp_path / "whole.gguf", *tiny.llama())
    (tmp_path / "parts").mkdir()
    return split(whole, tmp_path / "parts")


def test_a_split_model_is_that_of_one_file(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path / "cache"))
    model, _ = fw.load(parts[0])
    whole_model, _ = fw.load(tmp_path / "whole.gguf")
    assert all(
        torch.equal(tensor, whole_model.state_dict()[name])
        for name, tensor in model.state_dict().items()
    )
    folder = find_folder(parts[0])
    assert (folder / PROBE).is_file()
    # Other weights in a later part are another model.
    content = bytearray(parts[2].read_bytes())
    content[-40] ^= 1
    parts[2].write_bytes(content)
    assert find_folder(parts[0]) != folder


def test_llama_cpp_reads_the_same_parts(parts: list[Path]) -> None:
    pytest.importorskip("xllamacpp")
    assert LlamaServer(parts[0]).tokens("the fox")


SPOIL: list[tuple[Callable[[list[Path]], Path], str]] = [
    (lambda parts: parts[1], "one part of a split model; give the first one, .*m-00001-of"),
    (lambda parts: (parts[2].unlink(), parts[0])[1], "m-00003-of-00003.gguf is missing"),
    (lambda parts: parts[0].rename(parts[0].with_name("m.gguf")), "its name says otherwise"),
    (lambda parts: (parts[1].replace(parts[2]), parts[0])[1], "is missing"),
    (
        lambda parts: (parts[2].write_bytes(parts[1].read_bytes()), parts[0])[1],
        "part 1, from 0, of the 3",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), SPOIL)
def test_parts_that_do_not_fit(
    spoil: Callable[[list[Path]], Path], message: str, parts: list[Path]
) -> None:
    path = spoil(parts)
    with pytest.raises(BadInput, match=message):
        GGUFFile(path)
