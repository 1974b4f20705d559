"""Packed folders of tiny models to export, quantized to nearest by a plan, and models that GGUF can
hold exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tiny
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from featherweight.interchange.packed import folder as packed
from featherweight.quantization.formats.base import Format
from featherweight.quantization.pipeline import quantize
from featherweight.quantization.plans import Plan
from featherweight.quantization.rounding import Nearest

Make = Callable[[], tuple[Any, Any]]
TABLES = ("model.embed_tokens", "lm_head")
SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    **tiny.common(),
}
# Heads of 256 are what transformers' reader of Gemma files takes for granted.
GEMMA = {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 16}
GEMMA |= {"tie_word_embeddings": True}


def pack(
    folder: Path,
    make: Make,
    plan: Mapping[str, Format | None],
    tables: Format | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """The model of `make` in `dtype`, its matrices as `plan` says and its tables as `tables`, saved
    at `folder`.
    """
    model, tokenizer = make()
    model = model.to(dtype)
    names = TABLES[:1] if model.config.tie_word_embeddings else TABLES
    quantize(
        model,
        Nearest(),
        Plan({**plan} if "lm_head" in plan else {**dict.fromkeys(names, tables), **plan}),
    )
    return packed.save(model, folder, tokenizer)


def gemma_tokenizer() -> PreTrainedTokenizerFast:
    """A SentencePiece BPE as Gemma's: no space before texts, runs of spaces and lines as tokens of
    their own, bytes for what is unknown, and every way to make a token a merge.
    """
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    user_tokens = ["\n", "\n\n", "▁▁", "▁▁▁", "\t\t"]
    pieces = ["▁t", "he", "in", "▁the", "er", "an", "re", "qu", "▁a", "▁s", "fo", "▁fo", "▁fox"]
    letters = sorted(set("▁" + "".join(tiny.TEXT.split())))
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    data[9] = "\t"
    tokens = [*special, *data, *user_tokens, *pieces, *letters]
    vocab = {token: id_ for id_, token in enumerate(tokens)}
    merges = [
        (token[:cut], token[cut:])
        for token in [*user_tokens, *pieces]
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    backend = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    backend.add_tokens([AddedToken(token, normalized=False) for token in user_tokens])
    backend.post_processor = processors.TemplateProcessing(
        single="<bos>:0 $A:0", pair="<bos>:0 $A:0 <bos>:1 $B:1", special_tokens=[("<bos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


def qwen2() -> tuple[Any, Any]:
    """Untied, 4 heads of 24."""
    config = Qwen2Config(tie_word_embeddings=False, **SHAPE)
    return tiny.make(Qwen2ForCausalLM, config, 0), tiny.qwen_tokenizer()


def qwen3() -> tuple[Any, Any]:
    """Untied; heads of 128, the one width that transformers' reader of Qwen 3 files knows."""
    config = Qwen3Config(head_dim=128, tie_word_embeddings=False, **SHAPE)
    return tiny.make(Qwen3ForCausalLM, config, 0), tiny.qwen_tokenizer()


def mistral(**settings: Any) -> tuple[Any, Any]:
    """Untied, heads of 32; a window that hides no position."""
    window = SHAPE["max_position_embeddings"]
    config = MistralConfig(**{**SHAPE, "head_dim": 32, "sliding_window": window, **settings})
    return tiny.make(MistralForCausalLM, config, 0), tiny.tokenizer()


def olmo2(**settings: Any) -> tuple[Any, Any]:
    """Untied, 4 heads of 24."""
    config = Olmo2Config(**{**SHAPE, **settings})
    return tiny.make(Olmo2ForCausalLM, config, 0), tiny.tokenizer()


def phi3(**settings: Any) -> tuple[Any, Any]:
    """Tied, 4 heads of 24 that turn as a whole."""
    config = Phi3Config(**{**SHAPE, "tie_word_embeddings": True, **settings})
    return tiny.make(Phi3ForCausalLM, config, 0), tiny.tokenizer()


def long_phi3(**settings: Any) -> tuple[Any, Any]:
    """LongRoPE on 18 of the 24 numbers of each head, up to 512 positions."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 5000.0,
        "partial_rotary_factor": 0.75,
        "short_factor": [1 + index / 8 for index in range(9)],
        "long_factor": [2.0 + 0.5 * index for index in range(9)],
    }
    lengths = {"max_position_embeddings": 4096, "original_max_position_embeddings": 512}
    return phi3(**{"rope_parameters": rope, **lengths, **settings})


def gemma2(**settings: Any) -> tuple[Any, Any]:
    """Soft caps, and a window of 16 in the first of two layers."""
    config = Gemma2Config(**{**SHAPE, **GEMMA, **settings})
    return tiny.make(Gemma2ForCausalLM, config, 0), tiny.tokenizer()


def gemma3(**settings: Any) -> tuple[Any, Any]:
    """Two layers with a window of 16."""
    config = Gemma3TextConfig(**{**SHAPE, **GEMMA, **settings})
    return tiny.make(Gemma3ForCausalLM, config, 0), tiny.tokenizer()


def deep_gemma3() -> tuple[Any, Any]:
    """Seven layers, the sixth without a window; two rotary bases, one of them scaled; a soft cap;
    Gemma's tokenizer.
    """
    ropes = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
    }
    tokenizer = gemma_tokenizer()
    model, _ = gemma3(
        vocab_size=len(tokenizer),
        num_hidden_layers=7,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=8,
        final_logit_softcapping=4.0,
        rope_parameters=ropes,
    )
    return model, tokenizer


def spoken_gemma2() -> tuple[Any, Any]:
    """Gemma 2 with strong soft caps and Gemma's tokenizer."""
    tokenizer = gemma_tokenizer()
    caps = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0}
    return gemma2(vocab_size=len(tokenizer), **caps)[0], tokenizer


def scaled_llama(rope_type: str, **settings: float) -> Make:
    """A llama whose rotary frequencies are scaled."""

    def make() -> tuple[Any, Any]:
        rope = {"rope_type": rope_type, "rope_theta": 50000.0, **settings}
        config = LlamaConfig(
            tie_word_embeddings=True, rope_parameters=rope, **{**SHAPE, "hidden_size": 128}
        )
        return tiny.make(LlamaForCausalLM, config, 0), tiny.tokenizer()

    make.__name__ = rope_type
    return make


def llama3(context: int) -> Make:
    """A llama with Llama 3's scaling, trained on `context` positions."""
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return scaled_llama("llama3", **scaling, original_max_position_embeddings=context)


LINEAR = scaled_llama("linear", factor=4.0)


def wide_llama() -> tuple[Any, Any]:
    """A llama of widths that are multiples of 256."""
    shape = {**SHAPE, "hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.06}
    config = LlamaConfig(tie_word_embeddings=True, **shape)
    return tiny.make(LlamaForCausalLM, config, 0), tiny.tokenizer()
