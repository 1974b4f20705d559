"""A model's anatomy is found on architectures it was never told about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import other_families
import pytest
import tiny
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from featherweight.base.errors import UsageError
from featherweight.models import structure
from featherweight.models.anatomy import Anatomy


@pytest.mark.parametrize("make", tiny.ALL)
def test_blocks_linears_embedding_head(make: Callable[[], tuple[Any, Any]]) -> None:
    model, _ = make()
    names = [name for name, _ in structure.blocks(model)]
    assert names == ["model.layers.0", "model.layers.1"]
    found = structure.linears(model)
    assert len(found) == 2 * 7 + 1 and list(found)[-1] == "lm_head"
    assert all(model.get_submodule(name) is module for name, module in found.items())
    assert structure.embedding(model) == "model.embed_tokens" and structure.head(model) == "lm_head"
    assert structure.is_tied(model) == model.config.tie_word_embeddings


@pytest.mark.parametrize("make", tiny.ALL)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_shared_inputs(make: Callable[[], tuple[Any, Any]], device: str) -> None:
    model, _ = make()
    expected = [
        tuple(f"model.layers.{i}.{name}" for name in group)
        for i in range(2)
        for group in (
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            ("self_attn.o_proj",),
            ("mlp.gate_proj", "mlp.up_proj"),
            ("mlp.down_proj",),
        )
    ]
    assert structure.shared_inputs(model.to(device)) == expected


def test_probe_leaves_the_model_as_it_was() -> None:
    model, _ = tiny.llama()
    model.train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    structure.shared_inputs(model)
    assert [module.training for module in model.modules()] == before
    assert not any(module._forward_pre_hooks for module in model.modules())


class Toy(nn.Module):
    """Blocks whose linears read the same tensor by another view, a changed copy, and never."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: nn.Linear(4, 4)
                    for name in ("same", "view", "scaled", "other_shape", "unused")
                }
            )
            for _ in range(2)
        )

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> torch.Tensor:
        x: torch.Tensor = self.embed(input_ids)
        for layer in self.layers:
            a = (
                layer["same"](x)
                + layer["view"](x.view_as(x))
                + layer["other_shape"](x.view(-1, 4)).view_as(x)
            )
            x.mul_(2)
            x = a + layer["scaled"](x)
        return x


def test_only_the_very_same_tensor_counts() -> None:
    groups = structure.shared_inputs(Toy())
    names = ("same", "view"), ("other_shape",), ("scaled",), ("unused",)
    at = [tuple(f"layers.{i}.{name}" for name in group) for i in range(2) for group in names]
    assert sorted(groups) == sorted(at)


def test_experts_in_a_list_do_not_pass_for_blocks() -> None:
    model = Toy()
    for layer in model.layers:
        layer["experts"] = nn.ModuleList(nn.Linear(4, 4) for _ in range(9))
    assert [name for name, _ in structure.blocks(model)] == ["layers.0", "layers.1"]


def test_no_linears() -> None:
    config = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16)
    model = GPT2LMHeadModel(config).transformer  # GPT-2 keeps its weights in Conv1D modules
    with pytest.raises(UsageError, match="no linear layers"):
        structure.linears(model)
    with pytest.raises(UsageError, match="no repeated blocks"):
        structure.blocks(model)
    with pytest.raises(UsageError, match="token embedding"):
        structure.embedding(nn.Sequential(nn.Linear(2, 2)))
    assert structure.head(nn.Sequential(nn.Linear(2, 2))) is None
    assert list(structure.linears(nn.Sequential(nn.Linear(2, 2)))) == ["0"]


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 32,
}
LATENT = {
    **SMALL,
    "num_key_value_heads": 2,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
MIXTURES = {
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "phimoe"), SMALL),
    "granitemoe": SMALL,
    "jetmoe": {**SMALL, "kv_channels": 8},
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
}


def on_meta(model_type: str, settings: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings))


@pytest.mark.parametrize("model_type", MIXTURES)
def test_mixtures_of_experts_are_refused_by_name(model_type: str) -> None:
    model = on_meta(model_type, MIXTURES[model_type])
    message = rf"{model_type} is a mixture of experts \(\S+ is a \w*Expert\w*\)"
    for refuse in (structure.check_no_experts, structure.linears, Anatomy.of):
        with pytest.raises(UsageError, match=message):
            refuse(model)


def test_experts_that_are_linears_are_refused_too() -> None:
    model = Toy()
    for layer in model.layers:
        layer["experts"] = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
    with pytest.raises(UsageError, match=r"mixture of experts \(layers.0.experts is a ModuleList"):
        structure.linears(model)


def test_types_that_may_have_experts_but_have_none_are_dense() -> None:
    structure.check_no_experts(on_meta("deepseek_v3", {**LATENT, "first_k_dense_replace": 2}))


def test_other_stacked_weights_are_refused_by_name() -> None:
    model = Toy()
    for layer in model.layers:
        layer["conv"] = nn.Conv1d(4, 4, 3)
        layer["conv"].vector = nn.Parameter(torch.zeros(1, 1, 4))
        layer["norm"] = nn.LayerNorm(4)
        layer["norm"].mix = nn.Parameter(torch.zeros(1, 1, 4))
    assert structure.stacked_matrices(model) == {}
    layer["norm"].gates = nn.Parameter(torch.zeros(2, 4, 4))
    with pytest.raises(UsageError, match=r"3-D parameters .*layers.1.norm.gates \(2, 4, 4\)"):
        structure.linears(model)


def test_a_model_that_cannot_be_probed_says_why() -> None:
    class NoIds(Toy):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return pixels

    with pytest.raises(UsageError, match="two token ids"):
        structure.shared_inputs(NoIds())


class Reversed(nn.Linear):
    """Not a matrix product alone."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).flip(-1)


def test_layers_that_cannot_be_replaced_stay_as_they_are() -> None:
    """Mamba multiplies with the weight of `dt_proj` itself; Falcon's class is a plain product."""
    mamba = Anatomy.of(other_families.model("mamba"))
    names = {f"backbone.layers.{index}.mixer.dt_proj" for index in range(2)}
    assert mamba.weights_read == names and not mamba.unreached
    assert not names & set(mamba.linears) and not names & set(mamba.input_keys)
    assert not Anatomy.of(other_families.model("falcon")).weights_read
    model, _ = tiny.llama()
    layer = model.model.layers[0].mlp.up_proj
    model.model.layers[0].mlp.up_proj = Reversed(layer.in_features, layer.out_features)
    assert Anatomy.of(model).weights_read == {"model.layers.0.mlp.up_proj"}
    with torch.device("meta"):
        assert structure.is_product(nn.Linear(2, 3)) and not structure.is_product(Reversed(2, 3))


@pytest.mark.parametrize("make", [tiny.llama, tiny.gemma3])
def test_dynamic_rotary_positions_have_an_anatomy_on_meta(make: Callable[[], Any]) -> None:
    config = make()[0].config
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    rope |= {"rope_type": "dynamic", "factor": 2.0}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    types = [m.rope_type for m in model.modules() if hasattr(m, "rope_type")]
    assert len(Anatomy.of(model).block_linears) == 14
    assert [m.rope_type for m in model.modules() if hasattr(m, "rope_type")] == types
