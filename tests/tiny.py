"""Tiny random models with a tokenizer, made on the spot: no network, no files, the same numbers
every time.

`llama()` is the plain case (tied, grouped heads); `qwen3()` has q/k norms and an untied head;
`gemma3()` is tied and gated by GELU, with four norms a block and widths that are multiples of 4
only; `odd()` is Llama-like with biases everywhere and widths divisible by nothing convenient
(hidden 210, intermediate 346, 7 heads of 30, one key/value head: matrices of 30 rows). Norms and
biases are random too, so that a path which drops them shows. The weights are larger than usual
initial ones, so that the logits are far from uniform and an error in a layer is visible in them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from featherweight.interchange.gguf.tokenizer import RULES, pre_tokenizer

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on; "
    "the fox is not there when the morning comes. "
    "A feather weighs so little that the wind carries it over the hill, "
    "over the river and into the garden of a house. "
    "In 1905 there were 12 windows in that house; in 2024 there are 37, "
    "and nobody counts them any more."
)


@lru_cache(maxsize=1)
def _tokenizer_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return str(tokenizer.to_str())


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 tokens: 3 special ones, 256 bytes, 41 merges; any text survives the
    round trip.
    """
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json()),
        bos_token=SPECIALS[1],
        eos_token=SPECIALS[2],
        unk_token=SPECIALS[0],
        pad_token=SPECIALS[2],
    )
    made.chat_template = CHAT
    return made


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """The same, splitting text first as Qwen's do: transformers gives models of Qwen no other
    rule.
    """
    made = tokenizer()
    made.backend_tokenizer.pre_tokenizer = pre_tokenizer(RULES["qwen2"])
    made.backend_tokenizer.normalizer = normalizers.NFC()
    return made


def common() -> dict[str, Any]:
    """What all the configurations share."""
    return {
        "vocab_size": 300,
        "num_hidden_layers": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.12,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def make(model_class: type[PreTrainedModel], config: Any, seed: int) -> PreTrainedModel:
    """The model in eval mode; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            if name.endswith(
                "embed_tokens.weight"
            ):  # transformers leaves the row of the padding token at zero
                parameter.copy_(
                    config.initializer_range * torch.randn(parameter.shape, generator=generator)
                )
    return model.eval()


def llama(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Hidden 64, intermediate 128, 4 heads of 16 with 2 for keys and values; tied; no biases."""
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        **common(),
    )
    return make(LlamaForCausalLM, config, seed), tokenizer()


def qwen3(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Hidden 96, intermediate 160, 4 heads of 32 (wider than hidden) with 2 for keys and values;
    q/k norms; untied.
    """
    config = Qwen3Config(
        hidden_size=96,
        intermediate_size=160,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=False,
        **common(),
    )
    return make(Qwen3ForCausalLM, config, seed), tokenizer()


def gemma3(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Hidden 92, intermediate 172, 4 heads of 20 with 1 for keys and values; tied; GeGLU; a window
    of 64 in layer 0.
    """
    config = Gemma3TextConfig(
        hidden_size=92,
        intermediate_size=172,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=20,
        query_pre_attn_scalar=20,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
        tie_word_embeddings=True,
        **common(),
    )
    return make(Gemma3ForCausalLM, config, seed), tokenizer()


def qwen2(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Hidden 128, intermediate 192, 4 heads of 32 with 2 for keys and values; biases on q, k and v;
    tied.
    """
    config = Qwen2Config(
        hidden_size=128,
        intermediate_size=192,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        **common(),
    )
    return make(Qwen2ForCausalLM, config, seed), qwen_tokenizer()


def gemma2(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Hidden 96, intermediate 128, 4 heads of 24 with 2 for keys and values; soft caps; a window of
    8 in layer 0.
    """
    config = Gemma2Config(
        hidden_size=96,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        query_pre_attn_scalar=24,
        sliding_window=8,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=8.0,
        tie_word_embeddings=True,
        **common(),
    )
    return make(Gemma2ForCausalLM, config, seed), tokenizer()


def mistral(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Hidden 64, intermediate 128, 4 heads of 24 with 2 for keys and values; untied; a window of 12
    in all layers.
    """
    config = MistralConfig(
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        sliding_window=12,
        **common(),
    )
    return make(MistralForCausalLM, config, seed), tokenizer()


def granite(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Hidden 96, intermediate 160, 4 heads of 24 with 2 for keys and values; biases on attention;
    tied; every multiplier differs from 1.
    """
    config = GraniteConfig(
        hidden_size=96,
        intermediate_size=160,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        embedding_multiplier=3.0,
        attention_multiplier=0.3,
        residual_multiplier=0.22,
        logits_scaling=1.7,
        tie_word_embeddings=True,
        **common(),
    )
    return make(GraniteForCausalLM, config, seed), tokenizer()


def olmo2(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Hidden 90, intermediate 172, 5 heads of 18 with 1 for keys and values; q/k norms over all
    heads; untied.
    """
    config = Olmo2Config(
        hidden_size=90,
        intermediate_size=172,
        num_attention_heads=5,
        num_key_value_heads=1,
        **common(),
    )
    return make(Olmo2ForCausalLM, config, seed), tokenizer()


def phi3(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Hidden 100, intermediate 172, 5 heads of 20 with 1 for keys and values, of which 16 numbers
    turn; LongRoPE for more than 64 positions; a window of 24; untied.
    """
    dims = 8
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 0.8,
        "short_factor": [1.0 + 0.1 * index for index in range(dims)],
        "long_factor": [2.0 + 0.5 * index for index in range(dims)],
    }
    config = Phi3Config(
        hidden_size=100,
        intermediate_size=172,
        num_attention_heads=5,
        num_key_value_heads=1,
        sliding_window=24,
        original_max_position_embeddings=64,
        rope_parameters=rope,
        **common(),
    )
    return make(Phi3ForCausalLM, config, seed), tokenizer()


def odd(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Hidden 210, intermediate 346, 7 heads of 30 with 1 for keys and values; biases on attention
    and mlp; untied.
    """
    config = LlamaConfig(
        hidden_size=210,
        intermediate_size=346,
        num_attention_heads=7,
        num_key_value_heads=1,
        head_dim=30,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=False,
        **common(),
    )
    return make(LlamaForCausalLM, config, seed), tokenizer()


ALL = (llama, qwen3, gemma3, odd)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: Path) -> Path:
    """Write the pair as an ordinary model folder; returns `path`."""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
