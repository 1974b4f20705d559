"""Strategies that draw edits of a model folder (hostile_edits.py).

`folders()` draws the name of a sound model and a few edits. Some of them leave the folder valid
(tensors that transformers ignores, a stored head, shards), because a loader must also not refuse
or change what is right.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from tests.interchange.hostile_edits import (
    CONFIG,
    FAMILIES,
    GENERATION,
    INDEX,
    INDEX_EDITS,
    SETTINGS,
    TEMPLATE,
    TENSOR_EDITS,
    TOKENIZER,
    WEIGHTS,
    CutFile,
    Edit,
    EditTensors,
    NestConfig,
    RemoveFile,
    RemoveKey,
    SetKey,
    Shard,
    WriteFile,
)

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 1 << 31, 1 << 40, 1 << 70, 10**30),
    *(0.0, -1.5, 0.5, 256.0, 1e-320, 1e308, float("inf"), float("nan")),
    *("", "auto", "64", "float16", "bfloat16", "silu", "yarn", "no-such-thing", "\ud800"),
    *([], [0], [2], ["x"], {}, {"a": 1}, {"": None}, [[]]),
)
CONFIG_KEYS = (
    "model_type",
    "architectures",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
    "hidden_activation",
    "initializer_range",
    "tie_word_embeddings",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "layer_types",
    "query_pre_attn_scalar",
    "attention_bias",
    "mlp_bias",
    "attention_dropout",
    "use_cache",
    "use_sliding_window",
    "max_window_layers",
    "pretraining_tp",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "dtype",
    "torch_dtype",
    "quantization_config",
    "text_config",
    "num_labels",
    "id2label",
    "return_dict",
    "output_hidden_states",
    "output_attentions",
    "is_decoder",
    "is_encoder_decoder",
    "add_cross_attention",
    "tokenizer_class",
    "transformers_version",
    "transformers_weights",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_name_or_path",
    "chunk_size_feed_forward",
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "base_model_tp_plan",
    "sub_configs",
    "num_experts",
    "extra_key",
)
MODEL_TYPES = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gemma3", "gemma2", "mixtral", "gpt2"),
    *("bert", "t5", "clip", "mamba", "opt", "own", "llava", "whisper", "gpt_neox", "auto", ""),
)
OWN_CLASSES = {
    "AutoConfig": "own.C",
    "AutoModelForCausalLM": "own.C",
    "AutoTokenizer": ["own.C", "own.C"],
}
ROPES = tuple(
    {"rope_type": kind, "type": kind, "rope_theta": 10000.0, "factor": factor}
    for kind in ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "other", None)
    for factor in (2.0, 0, -1.0, "2", None)
)
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flex_attention", "own/kernel", "paged|eager")
QUANTIZATIONS = tuple(
    {"quant_method": method, "bits": 4, "group_size": 32}
    for method in ("gptq", "awq", "bitsandbytes", "fp8", "featherweight", "other", None, 3)
)


def config_edits() -> st.SearchStrategy[Edit]:
    """Edits of config.json and generation_config.json."""
    key = st.sampled_from(CONFIG_KEYS)
    value = st.sampled_from(ODD_VALUES)

    def setting(name: str, values: Any) -> st.SearchStrategy[Edit]:
        return st.builds(SetKey, st.just(CONFIG), st.just((name,)), st.sampled_from(values))

    return st.one_of(
        st.builds(SetKey, st.just(CONFIG), st.tuples(key), value),
        st.builds(RemoveKey, st.just(CONFIG), key),
        setting("model_type", MODEL_TYPES),
        setting("auto_map", (OWN_CLASSES, {"AutoConfig": "other/repo--own.C"}, [], "own.C")),
        setting("rope_parameters", ROPES),
        setting("rope_scaling", ROPES),
        setting("_attn_implementation", ATTENTIONS),
        setting("attn_implementation", ATTENTIONS),
        setting("quantization_config", QUANTIZATIONS),
        setting("transformers_weights", ("other.safetensors", "../other.safetensors", WEIGHTS)),
        st.builds(NestConfig, st.sampled_from(("text_config", "llm_config")), _model_types()),
        st.builds(
            SetKey,
            st.just(GENERATION),
            st.tuples(st.sampled_from(("eos_token_id", "temperature", "custom_generate", "x"))),
            value,
        ),
        st.builds(
            WriteFile, st.sampled_from((CONFIG, GENERATION, "adapter_config.json")), _json_files()
        ),
    )


def weight_edits() -> st.SearchStrategy[Edit]:
    """Edits of the weights and of the index of shards."""
    return st.one_of(
        st.builds(EditTensors, st.sampled_from(sorted(TENSOR_EDITS)), st.integers(0, 40)),
        st.builds(EditTensors, st.sampled_from(("head", "ignored")), st.integers(0, 40)),
        st.builds(Shard, st.sampled_from(sorted(INDEX_EDITS))),
        _cuts(WEIGHTS, INDEX),
    )


def tokenizer_edits() -> st.SearchStrategy[Edit]:
    """Edits of the tokenizer's files."""
    value = st.sampled_from(ODD_VALUES)
    keys = ("eos_token", "bos_token", "pad_token", "unk_token", "chat_template", "tokenizer_class")
    others = ("added_tokens_decoder", "auto_map", "extra_special_tokens", "model_max_length")
    token = {"content": "<new>", "lstrip": True, "special": True}
    decoders = ({"300": token}, {"x": token}, {"-1": token}, {"299": token}, {"5": 3}, [token])
    tokenizer_keys = ("model", "added_tokens", "pre_tokenizer", "decoder", "post_processor")
    inside = st.sampled_from(("type", "vocab", "merges", "unk_token", "byte_fallback", "pattern"))
    return st.one_of(
        st.builds(SetKey, st.just(SETTINGS), st.tuples(st.sampled_from(keys + others)), value),
        st.builds(
            SetKey,
            st.just(SETTINGS),
            st.just(("added_tokens_decoder",)),
            st.sampled_from(decoders),
        ),
        st.builds(
            SetKey,
            st.just(SETTINGS),
            st.just(("tokenizer_class",)),
            st.sampled_from(
                ("LlamaTokenizer", "GPT2TokenizerFast", "GemmaTokenizer", "OwnTokenizer")
            ),
        ),
        st.just(SetKey(SETTINGS, ("auto_map",), OWN_CLASSES)),
        st.builds(
            SetKey,
            st.sampled_from(("added_tokens.json", "special_tokens_map.json")),
            st.tuples(st.sampled_from(("<new>", "eos_token", "additional_special_tokens"))),
            st.sampled_from((*ODD_VALUES, 300, 299, token, [token])),
        ),
        st.builds(SetKey, st.just(TOKENIZER), st.tuples(st.sampled_from(tokenizer_keys)), value),
        st.builds(SetKey, st.just(TOKENIZER), st.tuples(st.just("model"), inside), value),
        st.builds(RemoveFile, st.sampled_from((TOKENIZER, SETTINGS))),
        st.builds(WriteFile, st.sampled_from((TOKENIZER, SETTINGS)), _json_files()),
        _cuts(TOKENIZER, SETTINGS),
    )


TEMPLATES = (
    "{{ messages[0]['content'] }}",
    "{% for m in messages %}{{ m.content }}",
    "{{ 1 / 0 }}",
    "{{ messages[7].content }}",
    "{{ none.x.y }}",
    "{{ 'a' * 10 ** 12 }}",
    "{{ range(10 ** 9) | list }}",
    "{{ raise_exception('no') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch TRACE') }}",
    "{{ messages.__class__.__base__ }}",
    "{% set _ = messages.append(1) %}",
    "{% include 'config.json' %}",
    "{% import 'own.py' as own %}",
    "{{ strftime_now(3) }}",
    "{{ strftime_now('%') }}",
    "{{ messages | tojson(indent='x') }}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "{{ lipsum.__globals__ }}",
    "{{ '%s' | format(messages) }}{{ '{0.__class__}'.format(messages) }}",
    "{% generation %}x{% endgeneration %}",
    "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
    "{{ '\\ud800' }}",
    "{{ unknown | no_such_filter }}",
    "{% break %}",
    "{{ [1] | first | int(base=99) }}",
    "{{ 'x'.encode('no-such-codec') }}",
    "{{ {}['x'] }}{{ {}.x.y }}",
    "",
)


def template_edits() -> st.SearchStrategy[Edit]:
    """Edits of the chat template. (Templates that never end are another matter.)"""
    template = st.sampled_from(TEMPLATES)
    return st.one_of(
        template.map(lambda text: WriteFile(TEMPLATE, text.encode("utf-8", "surrogatepass"))),
        template.map(lambda text: SetKey(SETTINGS, ("chat_template",), text)),
        st.just(WriteFile(TEMPLATE, b"\xff\xfe{{ x }}")),
        st.sampled_from(([{"name": "default", "template": "x"}], [3], {"default": "x"}, 3)).map(
            lambda value: SetKey(SETTINGS, ("chat_template",), value)
        ),
    )


def other_edits() -> st.SearchStrategy[Edit]:
    """Files that a loader should not need, or should not trust."""
    cards = (
        b"---\nlicense: [\n---\n",
        b"---\n- a\n---\n",
        b"\xff\xfe",
        b"---\nlicense: {a: b}\n---",
    )
    return st.one_of(
        st.sampled_from(cards).map(lambda card: WriteFile("README.md", card)),
        st.sampled_from(("pytorch_model.bin", "model.safetensors.index.json")).map(
            lambda name: WriteFile(name, b"\x80\x04\x95")
        ),
        st.builds(RemoveFile, st.sampled_from((CONFIG, WEIGHTS, GENERATION, TEMPLATE))),
    )


def _model_types() -> st.SearchStrategy[str]:
    return st.sampled_from(MODEL_TYPES)


def _cuts(*files: str) -> st.SearchStrategy[Edit]:
    replacements = (None, b"\x00", b"\xff", b"[", b'"', b"[" * 1200, b"9" * 50)
    return st.builds(
        CutFile,
        st.sampled_from(files),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(replacements),
    )


def _json_files() -> st.SearchStrategy[bytes]:
    return st.sampled_from(
        (b"", b"{}", b"[]", b"null", b"3", b'{"a":', b"[" * 1200, b"\xff\xfe{}", b'"text"')
    )


def folders() -> st.SearchStrategy[tuple[str, list[Edit]]]:
    """The name of a sound model and one to three edits."""
    edit = st.one_of(
        config_edits(),
        config_edits(),
        weight_edits(),
        weight_edits(),
        tokenizer_edits(),
        template_edits(),
        other_edits(),
    )
    return st.tuples(st.sampled_from(FAMILIES), st.lists(edit, min_size=1, max_size=3))
