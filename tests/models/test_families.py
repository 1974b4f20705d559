"""The records of families agree with transformers, which defines the models, and with the gguf
package, which defines the names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporting
import gguf
import pytest
import tiny
import torch
from transformers import AutoConfig

from featherweight.base.errors import BadInput, Unsupported
from featherweight.models import families
from featherweight.models.families import FULL_ATTENTION, SLIDING_ATTENTION, Family

MODELS = (
    tiny.llama,
    tiny.odd,
    tiny.qwen2,
    tiny.qwen3,
    tiny.gemma2,
    tiny.gemma3,
    tiny.mistral,
    tiny.granite,
    tiny.olmo2,
    tiny.phi3,
    exporting.phi3,
    exporting.long_phi3,
    exporting.mistral,
    exporting.deep_gemma3,
    exporting.llama3(16),
    exporting.LINEAR,
)


@pytest.mark.parametrize("make", MODELS)
def test_names_are_those_of_the_gguf_package(make: Callable[[], tuple[Any, Any]]) -> None:
    model, _ = make()
    family = families.find(model.config.model_type)
    assert family is not None
    reading = families.find_gguf(family.gguf.architecture)
    assert reading is not None and reading.gguf is family.gguf
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == family.gguf.architecture)
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    for name in model.state_dict():
        assert family.gguf_tensor(name) == names.get_name(name, try_suffixes=(".weight", ".bias"))
    assert family.gguf_tensor("model.layers.0.self_attn.sinks") is None
    assert family.gguf_tensor("model.layers.0.mlp.experts.weight") is None


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda family: family.model_type)
def test_defaults_are_those_of_transformers(family: Family) -> None:
    config = AutoConfig.for_model(family.model_type)
    ropes = config.rope_parameters
    ropes = ropes if FULL_ATTENTION in ropes else {FULL_ATTENTION: ropes, SLIDING_ATTENTION: ropes}
    for key, value in family.defaults.items():
        if key == "rope_theta":
            assert ropes[FULL_ATTENTION]["rope_theta"] == value
        elif key == "rope_local_base_freq":
            assert ropes[SLIDING_ATTENTION]["rope_theta"] == value
        else:
            assert getattr(config, key) == value, key


@pytest.mark.parametrize("make", MODELS)
def test_the_numbers_are_those_of_the_model(make: Callable[[], tuple[Any, Any]]) -> None:
    model, _ = make()
    config = model.config
    family = families.find(config.model_type)
    assert family is not None
    numbers = families.read_hyperparameters(config.to_dict(), family)
    attention = model.model.layers[0].self_attn
    assert numbers.attention_scale == pytest.approx(attention.scaling, rel=1e-12)
    assert numbers.head_width == attention.head_dim
    kind = SLIDING_ATTENTION if family.has_window and config.sliding_window else FULL_ATTENTION
    types = getattr(config, "layer_types", None) or [kind] * config.num_hidden_layers
    assert list(numbers.layer_types) == types
    assert numbers.is_tied == config.tie_word_embeddings
    assert bool(family.head_norms) == hasattr(attention, "q_norm")
    for layer_type in set(numbers.layer_types):
        name = f"{layer_type}_inv_freq"
        rotary = model.model.rotary_emb
        inv_freq = getattr(rotary, name) if hasattr(rotary, name) else rotary.inv_freq
        frequencies = torch.from_numpy(numbers.rope(layer_type).frequencies(numbers.head_width))
        # numpy's powers and torch's differ in the last bit.
        assert torch.allclose(frequencies, inv_freq, rtol=1e-6, atol=0), layer_type


def test_absent_keys_take_the_values_of_transformers() -> None:
    config = {"model_type": "gemma2", "hidden_size": 64, "num_attention_heads": 4}
    config |= {"num_hidden_layers": 3, "intermediate_size": 96, "vocab_size": 300}
    numbers = families.read_hyperparameters(config, families.GEMMA2)
    assert (numbers.attention_softcap, numbers.final_softcap) == (50.0, 30.0)
    assert (numbers.window, numbers.head_width, numbers.num_key_heads) == (4096, 256, 4)
    assert numbers.layer_types == (SLIDING_ATTENTION, FULL_ATTENTION, SLIDING_ATTENTION)
    capless = families.read_hyperparameters(
        {**config, "attn_logit_softcapping": None}, families.GEMMA2
    )
    assert capless.attention_softcap == 0


LONGROPE = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0] * 8}


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("hidden_size", 0, BadInput),
        ("num_attention_heads", "4", BadInput),
        ("rms_norm_eps", float("nan"), BadInput),
        ("rope_theta", 0.5, BadInput),
        ("rope_parameters", [1], BadInput),
        ("partial_rotary_factor", "x", BadInput),
        ("residual_multiplier", 0.0, BadInput),
        ("logits_scaling", -1.0, BadInput),
        ("partial_rotary_factor", 0.5, Unsupported),
        ("rope_scaling", {**LONGROPE, "short_factor": [1.0]}, BadInput),
        ("rope_scaling", {**LONGROPE, "long_factor": [1.0] * 7 + ["x"]}, BadInput),
        ("rope_scaling", {**LONGROPE, "original_max_position_embeddings": 1}, BadInput),
        ("layer_types", ["linear_attention"] * 2, Unsupported),
        ("layer_types", [FULL_ATTENTION], Unsupported),
    ],
)
def test_numbers_that_no_model_has(key: str, value: Any, error: type[Exception]) -> None:
    config = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    config |= {"intermediate_size": 96, "vocab_size": 300, key: value}

    def read() -> None:
        family = families.GRANITE if "_multiplier" in key or "scaling" in key else families.LLAMA
        families.read_hyperparameters(config, family).rope(FULL_ATTENTION)

    with pytest.raises(error):
        read()


def test_a_window_is_in_all_layers_or_in_none() -> None:
    config = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    config |= {"intermediate_size": 96, "vocab_size": 300}
    numbers = families.read_hyperparameters(config, families.MISTRAL)
    assert (numbers.window, numbers.layer_types) == (4096, (SLIDING_ATTENTION,) * 2)
    none = families.read_hyperparameters({**config, "sliding_window": None}, families.MISTRAL)
    assert (none.window, none.layer_types) == (0, (FULL_ATTENTION,) * 2)
    types = [SLIDING_ATTENTION, FULL_ATTENTION]
    with pytest.raises(Unsupported, match="all layers of a mistral model are alike"):
        families.read_hyperparameters({**config, "layer_types": types}, families.MISTRAL)


def test_unknown_names_have_no_record() -> None:
    for name in ("gpt_neox", None, 3, ["llama"]):
        assert families.find(name) is None and families.find_gguf(name) is None


LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
NEW = {"rope_type": "default", "rope_theta": 2e4}
NESTED = {"full_attention": {"rope_type": "default", "rope_theta": 3e5}, "sliding_attention": NEW}


@pytest.mark.parametrize("make", [tiny.llama, tiny.qwen3, tiny.gemma3])
@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": NEW},
        {"rope_parameters": NEW, "rope_scaling": LINEAR},
        {"rope_parameters": NEW, "rope_theta": 7e3, "rope_scaling": LINEAR},
        {"rope_parameters": None, "rope_theta": 7e3, "rope_scaling": LINEAR},
        {"rope_parameters": NEW, "rope_scaling": {}},
        {"rope_parameters": LLAMA3},
        {"rope_parameters": LLAMA3, "original_max_position_embeddings": 96},
        {"rope_parameters": None, "rope_scaling": {**LLAMA3, "type": "linear"}},
        {"rope_parameters": NESTED},
        {"rope_parameters": NESTED, "rope_scaling": LINEAR},
    ],
)
def test_rotary_settings_in_every_form_are_those_of_transformers(
    make: Any, changes: dict[str, Any], tmp_path: Path
) -> None:
    """A key that is read in another order than in transformers changes every answer in silence."""
    model, _ = make()
    config = {**json.loads(model.config.to_json_string()), **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    family = families.find(config["model_type"])
    assert family is not None
    numbers = families.read_hyperparameters(config, family)
    if changes == {"rope_parameters": NESTED} and make is not tiny.gemma3:
        with pytest.raises(BadInput, match="the same ones in all layers"):
            numbers.rope(FULL_ATTENTION)
        return
    try:
        expected = type(model)(AutoConfig.from_pretrained(tmp_path)).model.rotary_emb
    except KeyError:  # transformers wants settings for each kind of layer here
        assert make is tiny.gemma3
        return
    for layer_type in set(numbers.layer_types):
        frequencies = numbers.rope(layer_type).frequencies(numbers.head_width)
        name = f"{layer_type}_inv_freq"
        inv_freq = getattr(expected, name) if hasattr(expected, name) else expected.inv_freq
        assert torch.allclose(torch.from_numpy(frequencies), inv_freq, rtol=1e-5), layer_type


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rope_scaling": {**LONGROPE, "type": "su", "original_max_position_embeddings": 99}},
        {"rope_scaling": {**LONGROPE, "type": "yarn", "factor": 3.0}, "rope_theta": 7e3},
        {"rope_scaling": {**LONGROPE, "attention_factor": 1.5}},
        {"rope_scaling": LONGROPE, "max_position_embeddings": 64},
        {"rope_scaling": {"type": "longrope", "short_factor": [2.0] * 4, "long_factor": [1.0] * 4}}
        | {"partial_rotary_factor": 0.4},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.4}},
        {"rope_parameters": None, "partial_rotary_factor": 0.75},
        {"rope_parameters": None},
    ],
)
def test_longrope_in_every_form_is_that_of_transformers(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    model, _ = tiny.phi3()
    config = {**json.loads(model.config.to_json_string()), "partial_rotary_factor": 0.8, **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rope = families.read_hyperparameters(config, families.PHI3).rope(SLIDING_ATTENTION)
    rotary = type(model)(AutoConfig.from_pretrained(tmp_path)).model.rotary_emb
    frequencies = torch.from_numpy(rope.frequencies(20))
    assert torch.allclose(frequencies, rotary.inv_freq, rtol=1e-6, atol=0)
    assert rope.rotary_width(20) == 2 * len(rotary.inv_freq)
    assert rope.attention_factor == pytest.approx(rotary.attention_scaling, rel=1e-12)
    assert rope.num_positions == (64 if rotary.rope_type == "longrope" else 0)
