"""The record of one architecture: its facts for transformers, GGUF and the native engine.

Import, export and the native engine use the same record, so that a family that can be written to
GGUF can also be read from it. The facts are: which norms its blocks have, whether heads are
normalised, which layers have a sliding window, how attention is scaled, and the names of all this
in GGUF. A configuration that asks for anything else is refused.
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
    """The names of one module in transformers and in GGUF. For a module of a block, both lack the
    name of the block.
    """

    transformers: str
    gguf: str


EMBEDDING = ModuleNames("model.embed_tokens", "token_embd")
FINAL_NORM = ModuleNames("model.norm", "output_norm")
HEAD = ModuleNames("lm_head", "output")
# The matrices of a block, by their names in the native engine.
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
# The same where the products of one input are one matrix: the rows of q, k and v, and those of gate
# and up.
FUSED_MATRICES: Mapping[str, ModuleNames] = MappingProxyType(
    {
        "query": ModuleNames("self_attn.qkv_proj", "attn_qkv"),
        "out": MATRICES["out"],
        "gate": ModuleNames("mlp.gate_up_proj", "ffn_up"),
        "down": MATRICES["down"],
    }
)
# The norms of a block in most families: one before attention, one before the feed-forward network.
PRE_NORMS: Mapping[str, ModuleNames] = MappingProxyType(
    {
        "attention_norm": ModuleNames("input_layernorm", "attn_norm"),
        "ffn_norm": ModuleNames("post_attention_layernorm", "ffn_norm"),
    }
)
# The norms of a block in Gemma: one before and one after each of the two.
SANDWICH_NORMS: Mapping[str, ModuleNames] = MappingProxyType(
    {
        "attention_norm": ModuleNames("input_layernorm", "attn_norm"),
        "after_attention_norm": ModuleNames("post_attention_layernorm", "post_attention_norm"),
        "ffn_norm": ModuleNames("pre_feedforward_layernorm", "ffn_norm"),
        "after_ffn_norm": ModuleNames("post_feedforward_layernorm", "post_ffw_norm"),
    }
)
# The norms of a block in OLMo 2: one after each of the two.
POST_NORMS: Mapping[str, ModuleNames] = MappingProxyType(
    {
        "after_attention_norm": ModuleNames("post_attention_layernorm", "post_attention_norm"),
        "after_ffn_norm": ModuleNames("post_feedforward_layernorm", "post_ffw_norm"),
    }
)
# Norms of queries and keys: of the width of one head and shared by all heads of a layer, or of all
# heads together (`Family.has_joint_head_norms`).
HEAD_NORMS: Mapping[str, ModuleNames] = MappingProxyType(
    {
        "query_norm": ModuleNames("self_attn.q_norm", "attn_q_norm"),
        "key_norm": ModuleNames("self_attn.k_norm", "attn_k_norm"),
    }
)


@dataclass(frozen=True)
class GGUFRules:
    """How GGUF files store a family, and which of its constants are in the code of runtimes instead
    of in the file.

    `architecture`: the value of `general.architecture` in the file. `activation`: the activation
    function of runtimes. `interleaved_heads`: rows of q and k alternate between the two halves of a
    head. `rope_types`: the scalings of rotary frequencies that a file can express.
    `local_rope_theta`: the rotary base of layers with a window when the file has none (None: that
    of the other layers). `softcaps`: configuration key of a soft cap -> the cap that runtimes use
    when the file has none (None: no cap); a cap that is not listed cannot be expressed.
    `hidden_scale_layers`: runtimes scale the attention of a model with this number of layers by
    hidden width / heads instead of the head width. `is_tied`: files hold no head, and runtimes use
    the embedding as the head.
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
    """The facts about one architecture.

    `model_type`: its name in config.json. `gguf`: how GGUF files store it. `matrices`, `norms`,
    `head_norms`: names of the native engine -> modules of a block. `has_joint_head_norms`: the
    norms of `head_norms` are over all heads together instead of over each. `defaults`: the values
    that transformers uses for keys that a config.json lacks. `norm_offset`: a number that is added
    to the weights of every norm before the multiplication; GGUF stores the sum. `window_period`:
    one of so many layers has full attention, the others have a sliding window (0: all layers are
    alike). `has_window`: all layers have a sliding window when the configuration gives its width,
    `sliding_window`. `biases`: the matrices that always have a bias. `bias_flags`: configuration
    key -> the matrix whose bias, with those beside it, the key switches on.
    `has_head_dim`: whether the configuration has the key `head_dim`. `has_query_scalar`: attention
    is scaled by `query_pre_attn_scalar` ** -0.5 instead of head width ** -0.5. `has_softcaps`:
    attention scores and logits may have soft caps. `scales_embedding`: embeddings are multiplied by
    the square root of the hidden width. `has_multipliers`: the configuration has factors of
    embeddings, attention scores and additions to the residual, and a divisor of logits.
    `has_partial_rope`: `partial_rotary_factor` may be the share of each head that turns with its
    position. `longrope_names`: other names of the rotary type longrope in configurations.
    """

    model_type: str
    gguf: GGUFRules
    norms: Mapping[str, ModuleNames]
    defaults: Mapping[str, Any]
    matrices: Mapping[str, ModuleNames] = field(default_factory=lambda: MATRICES)
    head_norms: Mapping[str, ModuleNames] = field(default_factory=dict)
    has_joint_head_norms: bool = False
    norm_offset: float = 0.0
    window_period: int = 0
    has_window: bool = False
    biases: tuple[str, ...] = ()
    bias_flags: Mapping[str, str] = field(default_factory=dict)
    has_head_dim: bool = True
    has_query_scalar: bool = False
    has_softcaps: bool = False
    scales_embedding: bool = False
    has_multipliers: bool = False
    has_partial_rope: bool = False
    longrope_names: tuple[str, ...] = ()

    def gguf_tensor(self, name: str) -> str | None:
        """GGUF's name of the tensor `name` of transformers; None when GGUF has none."""
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
        """The number whose inverse square root scales attention in runtimes of GGUF files.

        `width`: the width of one head.
        """
        return hidden // num_heads if num_layers == self.gguf.hidden_scale_layers else width

    def _outer_modules(self) -> tuple[ModuleNames, ...]:
        heads = () if self.gguf.is_tied else (HEAD,)
        return (EMBEDDING, FINAL_NORM, *heads)

    def _block_modules(self) -> tuple[ModuleNames, ...]:
        return (*self.matrices.values(), *self.norms.values(), *self.head_norms.values())
