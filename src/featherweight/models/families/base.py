"""The record of one architecture: what transformers, GGUF and the native engine must know of it.

Import, export and the native engine read the same record, so that a family that can be written to
GGUF can be read from it. A family is a handful of facts: which norms its blocks have, whether heads
are normalised, which layers see a window, how attention is scaled, and what GGUF calls all of it.
Whatever a configuration asks beyond these facts is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

FULL_ATTENTION, SLIDING_ATTENTION = "full_attention", "sliding_attention"
ATTENTION_CAP, FINAL_CAP = "attn_logit_softcapping", "final_logit_softcapping"
_BLOCK = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class ModuleNames:
    """What transformers and GGUF call one module; modules of a block without the block's name."""

    transformers: str
    gguf: str


EMBEDDING = ModuleNames("model.embed_tokens", "token_embd")
FINAL_NORM = ModuleNames("model.norm", "output_norm")
HEAD = ModuleNames("lm_head", "output")
# The matrices of a block, by the names that the native engine gives them.
MATRICES: Mapping[str, ModuleNames] = MappingProxyType(
    {
        "query": ModuleNames("self_attn.q_proj", "attn_q"),
        "key": ModuleNames("self_attn.k_proj", "attn_k"),
        "value": ModuleNames("self_attn.v_proj", "attn_v"),
        "out": ModuleNames("self_attn.o_proj", "attn_output"),
        "gate": ModuleNames("mlp.gate_proj", "ffn_gate"),
        "up": ModuleNames("mlp.up_proj", "ffn_up"),
        "down": ModuleNames("mlp.down_proj", "ffn_down"),
    }
)
# Norms of the hidden width: one before attention and one before the feed-forward network, ...
PRE_NORMS: Mapping[str, ModuleNames] = MappingProxyType(
    {
        "attention_norm": ModuleNames("input_layernorm", "attn_norm"),
        "ffn_norm": ModuleNames("post_attention_layernorm", "ffn_norm"),
    }
)
# ... or, in Gemma, one more behind each of the two.
SANDWICH_NORMS: Mapping[str, ModuleNames] = MappingProxyType(
    {
        "attention_norm": ModuleNames("input_layernorm", "attn_norm"),
        "after_attention_norm": ModuleNames("post_attention_layernorm", "post_attention_norm"),
        "ffn_norm": ModuleNames("pre_feedforward_layernorm", "ffn_norm"),
        "after_ffn_norm": ModuleNames("post_feedforward_layernorm", "post_ffw_norm"),
    }
)
# Norms of the width of one head, shared by all heads of a layer.
HEAD_NORMS: Mapping[str, ModuleNames] = MappingProxyType(
    {
        "query_norm": ModuleNames("self_attn.q_norm", "attn_q_norm"),
        "key_norm": ModuleNames("self_attn.k_norm", "attn_k_norm"),
    }
)


@dataclass(frozen=True)
class GGUFRules:
    """How GGUF files store a family, and what their runtimes fix in code instead of reading it.

    `architecture` is the file's `general.architecture`. `activation` is the one that runtimes
    compute. `interleaved_heads`: rows of q and k take turns by the two halves of a head.
    `rope_types`: scalings of rotary frequencies that files can express. `local_rope_theta`: the
    rotary base of layers with a window when a file names none (None: that of the other layers).
    `softcaps`: configuration key of a soft cap -> the cap that runtimes use when a file names none
    (None: no cap); a cap that is not listed cannot be expressed. `hidden_scale_layers`: with this
    number of layers runtimes scale attention by hidden width / heads instead of the head's width.
    `is_tied`: runtimes take the embedding for the head, and files hold no other.
    """

    architecture: str
    activation: str = "silu"
    interleaved_heads: bool = False
    rope_types: tuple[str, ...] = ("default", "linear")
    local_rope_theta: float | None = None
    softcaps: Mapping[str, float | None] = field(default_factory=dict)
    hidden_scale_layers: int = 0
    is_tied: bool = False


@dataclass(frozen=True)
class Family:
    """What is known of one architecture.

    `model_type` is transformers' name in config.json. `defaults` are the values of configuration
    keys that transformers uses when a config.json lacks them. `norms` and `head_norms` map the
    native engine's names to modules of a block. `norm_offset` is added to the weights of every norm
    before the product; GGUF stores the sum. `window_period`: one layer in so many sees all
    positions, the others a window (0: all layers see all positions). `bias_flags`: configuration
    key -> the matrix whose bias it switches. `has_head_dim`: the configuration has the key
    `head_dim`. `has_query_scalar`: attention is scaled by `query_pre_attn_scalar` ** -0.5 instead
    of the head's width. `has_softcaps`: attention scores and logits may be capped.
    `scales_embedding`: embeddings are multiplied by the root of the hidden width.
    """

    model_type: str
    gguf: GGUFRules
    norms: Mapping[str, ModuleNames]
    defaults: Mapping[str, Any]
    head_norms: Mapping[str, ModuleNames] = field(default_factory=dict)
    norm_offset: float = 0.0
    window_period: int = 0
    bias_flags: Mapping[str, str] = field(default_factory=dict)
    has_head_dim: bool = True
    has_query_scalar: bool = False
    has_softcaps: bool = False
    scales_embedding: bool = False

    def gguf_tensor(self, name: str) -> str | None:
        """GGUF's name of the tensor that transformers calls `name`; None when it has none."""
        module, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias"):
            return None
        block = _BLOCK.fullmatch(module)
        prefix = f"blk.{block[1]}." if block else ""
        for names in self._block_modules() if block else self._outer_modules():
            if names.transformers == (block[2] if block else module):
                return f"{prefix}{names.gguf}.{kind}"
        return None

    def gguf_query_scalar(self, num_layers: int, hidden: int, num_heads: int, width: int) -> int:
        """The number whose inverse root scales attention in runtimes of GGUF files.

        `width` is that of one head.
        """
        return hidden // num_heads if num_layers == self.gguf.hidden_scale_layers else width

    def _outer_modules(self) -> tuple[ModuleNames, ...]:
        heads = () if self.gguf.is_tied else (HEAD,)
        return (EMBEDDING, FINAL_NORM, *heads)

    def _block_modules(self) -> tuple[ModuleNames, ...]:
        return (*MATRICES.values(), *self.norms.values(), *self.head_norms.values())
