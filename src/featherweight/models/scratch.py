"""The small Llama of all experiments: a model of any shape, trained from random weights, some of
whose parts can be replaced by other classes.

    model = scratch_model(vocabulary=len(tokenizer), width=128, blocks=4, norm=DynamicTanh)

Without replaced parts it is transformers' `LlamaForCausalLM` and nothing else, so every verb, the
native engine and GGUF take it. With replaced parts it is a `ScratchForCausalLM`: the same model,
built from the classes that its configuration names. Such a folder is loaded only in a process that
has imported these classes; nothing is imported because a file names it. A replaced linear class is
compressed like every other as long as it computes x W^T + b (`structure.is_product`).

Weights are normal with deviation 0.55 / sqrt(width), which is GPT-2's 0.02 at its width of 768, and
less by sqrt(2 blocks) for the projections that add to the residual stream, as in GPT-2. Each tensor
is drawn from its own seed, made of `seed` and its name, so models that differ in one part start
from the same weights elsewhere. Norms and other parameters keep what their class gives them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, no_type_check

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ..base.errors import BadInput, UsageError
from ..base.seeds import seed_of
from .config import SCRATCH

Part = Callable[..., nn.Module]
# Deviation of the weights times the square root of the width.
SPREAD = 0.55
RESIDUAL_PROJECTIONS = ("o_proj", "down_proj")


# transformers passes arguments that are no fields, which the tests' type checker would refuse.
@no_type_check
class ScratchConfig(LlamaConfig):
    """The configuration of a Llama with replaced parts.

    parts: "norm", "linear", "embedding" or "attention" -> "module:class" that takes its place.
    """

    model_type = SCRATCH
    parts: dict[str, str] | None = None


class ScratchForCausalLM(LlamaForCausalLM):
    """A Llama whose parts are those that `config.parts` names. Raises BadInput when this process
    has not imported one of them.
    """

    config_class = ScratchConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        parts = {name: _part(name, path) for name, path in (config.parts or {}).items()}
        _replace_parts(self, parts)
        self.tie_weights()


def scratch_model(
    vocabulary: int,
    width: int = 128,
    blocks: int = 4,
    heads: int = 4,
    *,
    key_heads: int | None = None,
    inner_width: int | None = None,
    context: int = 512,
    is_tied: bool = True,
    end_id: int | None = 0,
    attention: str | type[nn.Module] = "sdpa",
    norm: type[nn.Module] | None = None,
    linear: type[nn.Module] | None = None,
    embedding: type[nn.Module] | None = None,
    seed: int = 0,
) -> LlamaForCausalLM:
    """A Llama with random weights in float32 on the CPU, in training mode.

    Args: vocabulary, width, blocks, heads (of queries), key_heads (None: as many), inner_width of
    the MLP (None: 8/3 of the width, rounded up to a multiple of 16), context, in tokens; is_tied,
    one table for embedding and head; end_id, the token that ends a text (None: there is none);
    attention, an implementation of transformers such as "eager", or a class made as
    `attention(config, layer_index)`; norm, made as `norm(width, eps)`; linear, for the layers
    inside the blocks (not the head), made as `linear(inputs, outputs, bias=False)`; embedding, made
    as `embedding(rows, width)`. The caller's random state does not change. Raises UsageError for a
    shape that no model has, and for a class that could not be named in a configuration.
    """
    _check_heads(width, heads, key_heads or heads)
    own_attention = None if isinstance(attention, str) else attention
    classes = {"norm": norm, "linear": linear, "embedding": embedding, "attention": own_attention}
    parts = {name: _path(name, part) for name, part in classes.items() if part is not None}
    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner_width or -(-8 * width // 48) * 16,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads or heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": is_tied,
        "initializer_range": SPREAD / width**0.5,
        "bos_token_id": None,
        "eos_token_id": end_id,
        "pad_token_id": None,
        "attn_implementation": attention if isinstance(attention, str) else "sdpa",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("scratch", seed))
        if parts:
            register()
            model: LlamaForCausalLM = ScratchForCausalLM(ScratchConfig(parts=parts, **settings))
        else:
            model = LlamaForCausalLM(LlamaConfig(**settings))
    _draw_weights(model, SPREAD / width**0.5, blocks, seed)
    return model.train()


def _check_heads(width: int, heads: int, key_heads: int) -> None:
    if width % heads or heads % key_heads or width // heads % 2:
        raise UsageError(
            f"width {width}, {heads} heads and {key_heads} key heads: the width should be an even "
            "multiple of the heads, and the heads a multiple of the key heads"
        )


def register() -> None:
    """Let transformers' Auto classes build models with replaced parts. A second call does nothing.

    Called by `scratch_model`, and by `interchange` when a folder has such a model.
    """
    AutoConfig.register(SCRATCH, ScratchConfig, exist_ok=True)
    AutoModelForCausalLM.register(ScratchConfig, ScratchForCausalLM, exist_ok=True)


def _replace_parts(model: Any, parts: Mapping[str, Part]) -> None:
    """Put new modules of the classes in `parts` where those of a Llama are."""
    config = model.config
    if "attention" in parts:
        for index, block in enumerate(model.model.layers):
            block.self_attn = parts["attention"](config, index)
    if "embedding" in parts:
        model.model.embed_tokens = parts["embedding"](config.vocab_size, config.hidden_size)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if "norm" in parts and type(child).__name__ == "LlamaRMSNorm":
                new: nn.Module = parts["norm"](config.hidden_size, config.rms_norm_eps)
            elif "linear" in parts and type(child) is nn.Linear and name != "lm_head":
                new = parts["linear"](child.in_features, child.out_features, bias=False)
            else:
                continue
            setattr(parent, name, new)


def _draw_weights(model: nn.Module, deviation: float, blocks: int, seed: int) -> None:
    """Draw the weight of every linear layer and of the embedding from a seed of its own."""
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        is_residual = name.rpartition(".")[2] in RESIDUAL_PROJECTIONS
        divisor = (2 * blocks) ** 0.5 if is_residual else 1.0
        generator = torch.Generator().manual_seed(seed_of(seed, name))
        with torch.no_grad():
            module.weight.normal_(0, deviation / divisor, generator=generator)


def _path(name: str, part: type[nn.Module]) -> str:
    """ "module:class", by which `_part` finds the class again. Raises UsageError otherwise."""
    path = f"{part.__module__}:{part.__qualname__}"
    if getattr(sys.modules.get(part.__module__), part.__qualname__, None) is not part:
        raise UsageError(
            f"{name}={path} cannot be named in a configuration, so the model could not be loaded "
            "again; define the class at the top of a module"
        )
    return path


def _part(name: str, path: str) -> Part:
    """The class at "module:class". Raises BadInput when it is not in this process."""
    module_name, _, class_name = path.partition(":")
    part: Any = getattr(sys.modules.get(module_name), class_name, None)
    if not (isinstance(part, type) and issubclass(part, nn.Module)):
        raise BadInput(
            f"the model's {name} is {path}, which this process has not imported; import "
            f"{module_name} before loading the model"
        )
    return part
