"""Two hundred hostile or unusual model folders; `benchmarks/hostile.py` tries ten thousand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.interchange import hostile_strategies
from tests.interchange.hostile_check import Room
from tests.interchange.hostile_edits import Edit

from featherweight.base.errors import BadInput, Unsupported, UsageError
from featherweight.inference.native.reader import read_model
from featherweight.inference.reference import ReferenceEngine
from featherweight.inference.text.tokenizer import ChatTokenizer
from featherweight.interchange import loading
from featherweight.interchange.source import Source
from featherweight.workflows.engines import open_engine

NUM_FOLDERS = 80


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return Room(tmp_path_factory.mktemp("hostile"))


def test_sound_folders_are_quantized(room: Room) -> None:
    for family in hostile_strategies.FAMILIES:
        assert room.outcome(family, []) == "quantized"


def test_hostile_folders_are_refused_or_read_as_transformers_reads_them(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room.path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(room.path / "modules"))
    outcomes: Counter[str] = Counter()

    @settings(max_examples=NUM_FOLDERS, suppress_health_check=list(HealthCheck))
    @given(hostile_strategies.folders(), st.booleans())
    def check(folder: tuple[str, list[Edit]], quantize: bool) -> None:
        outcomes[room.outcome(*folder, quantize)] += 1

    check()
    # Neither everything is refused, nor is nothing.
    assert outcomes["quantized"] > NUM_FOLDERS // 10
    assert outcomes["refused"] > NUM_FOLDERS // 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save(*tiny.llama(), tmp_path / "folder")


def set_keys(folder: Path, changes: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 1 << 40},
        {"num_labels": 10**30},
        {"model_type": "gemma3", "text_config": {"num_hidden_layers": 1 << 40}},
        {"model_type": "gpt2", "n_layer": 1 << 40},
    ],
)
def test_impossible_counts_are_refused_before_anything_is_built(
    folder: Path, changes: dict[str, Any]
) -> None:
    set_keys(folder, changes)
    for read in (loading.load, lambda path: Source.find(path).anatomy):
        with pytest.raises(BadInput, match=r"config.json: .* more than any model has"):
            read(folder)


def test_wrong_shapes_are_refused_before_memory_is_allocated(folder: Path) -> None:
    """transformers would allocate a table of 2 ** 40 rows."""
    set_keys(folder, {"vocab_size": 1 << 40})
    with pytest.raises(BadInput, match=r"embed_tokens.weight is \[300, 64\]"):
        loading.load(folder)


@pytest.mark.parametrize(
    "template",
    ["{{ 1 / 0 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ range(10 ** 9) }}"],
)
def test_errors_of_a_chat_template_are_refusals(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UsageError, match="chat template refuses these messages"):
        ChatTokenizer.open(folder).chat([{"role": "user", "content": "Why?"}])


@pytest.mark.parametrize("template", ["{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "{% break %}"])
def test_a_template_that_is_no_program_is_refused(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(BadInput, match="chat template"):
        ChatTokenizer.open(folder)


@pytest.mark.parametrize(
    "card", [b"---\nlicense: [\n---\n", b"---\n- a\n---\n", b"---\nlicense: \xff\n---\n"]
)
def test_a_damaged_model_card_names_no_licence(folder: Path, card: bytes) -> None:
    (folder / "README.md").write_bytes(card)
    assert Source.find(folder).licence is None


def test_other_weights_than_those_that_are_read_are_refused(folder: Path) -> None:
    set_keys(folder, {"transformers_weights": "model.safetensors"})
    loading.load(folder)
    set_keys(folder, {"transformers_weights": "other.safetensors"})
    with pytest.raises(BadInput, match=r"'other.safetensors' \(transformers_weights\)"):
        Source.find(folder)


def test_the_native_engine_refuses_tensors_that_it_does_not_read(tmp_path: Path) -> None:
    """A Gemma 3 whose configuration says Llama: its further norms are no part of a Llama."""
    folder = tiny.save(*tiny.gemma3(), tmp_path / "folder")
    set_keys(folder, {"model_type": "llama", "hidden_act": "silu", "rope_parameters": None})
    with pytest.raises(Unsupported, match="holds tensors that the native engine does not read"):
        read_model(folder)
    with pytest.raises(BadInput, match="holds tensors that a LlamaForCausalLM does not have"):
        open_engine(folder)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_context_that_no_model_has_is_refused(folder: Path, limit: int) -> None:
    model, _ = loading.load(folder)
    model.config.max_position_embeddings = limit
    with pytest.raises(BadInput, match="how many tokens the model can read"):
        ReferenceEngine(model, "", "")


def test_a_tokenizer_that_cannot_encode_is_refused(tmp_path: Path) -> None:
    """Without settings, Gemma's tokenizer has an unknown token that is in no vocabulary."""
    folder = tiny.save(*tiny.gemma3(), tmp_path / "folder")
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(BadInput, match="the tokenizer cannot encode text: Unk token"):
        loading.load(folder)


def test_the_native_engine_refuses_what_transformers_would_make_up(folder: Path) -> None:
    """A Llama whose configuration says Qwen 2: the biases are not there."""
    set_keys(folder, {"model_type": "qwen2"})
    with pytest.raises(BadInput, match="k_proj.bias, which qwen2 models have"):
        read_model(folder)


def test_the_native_engine_refuses_numbers_that_are_not_finite(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.self_attn.q_proj.weight"][3, 5] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"layers.1.self_attn.q_proj holds numbers that are not"):
        read_model(folder)


def test_half_a_character_is_no_token(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": "\ud800"}))
    with pytest.raises(BadInput, match="pad_token should be a token"):
        ChatTokenizer.open(folder)
