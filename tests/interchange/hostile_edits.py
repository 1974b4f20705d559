"""Edits of a model folder, as hypothesis draws them: of its settings, weights, tokenizer and chat
template.

A folder is a mapping of file names to bytes. An `Edit` changes it in place, and its `repr` says
how, so that a failing example can be read and repeated. `folders()` draws the name of a sound model
and a few edits. Some of them leave the folder valid (tensors that transformers ignores, a stored
head, shards), because a loader must also not refuse or change what is right.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

Files = dict[str, bytes]
Tensors = dict[str, torch.Tensor]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FAMILIES = ("llama", "qwen3", "gemma3")


class Edit(ABC):
    """One change of a folder. An edit that does not apply any more changes nothing."""

    @abstractmethod
    def apply(self, files: Files) -> None:
        """Change `files`."""


@dataclass(frozen=True)
class SetKey(Edit):
    """Set, or add, one key of a JSON file."""

    file: str
    path: tuple[str, ...]
    value: Any

    def apply(self, files: Files) -> None:
        content = _json(files, self.file, {})
        inside = content
        for key in self.path[:-1]:
            if isinstance(inside, dict):
                inside = inside.setdefault(key, {})
        if isinstance(inside, dict):
            inside[self.path[-1]] = self.value
            files[self.file] = _text(content)


@dataclass(frozen=True)
class RemoveKey(Edit):
    """Remove one key of a JSON file."""

    file: str
    key: str

    def apply(self, files: Files) -> None:
        content = _json(files, self.file, None)
        if isinstance(content, dict):
            content.pop(self.key, None)
            files[self.file] = _text(content)


@dataclass(frozen=True)
class NestConfig(Edit):
    """Move the configuration below a key, as multimodal models have it."""

    key: str
    model_type: str

    def apply(self, files: Files) -> None:
        content = _json(files, CONFIG, None)
        if isinstance(content, dict):
            files[CONFIG] = _text({"model_type": self.model_type, self.key: content})


@dataclass(frozen=True)
class WriteFile(Edit):
    """Replace, or add, a file."""

    file: str
    content: bytes

    def apply(self, files: Files) -> None:
        files[self.file] = self.content


@dataclass(frozen=True)
class RemoveFile(Edit):
    """Remove a file."""

    file: str

    def apply(self, files: Files) -> None:
        files.pop(self.file, None)


@dataclass(frozen=True)
class CutFile(Edit):
    """Keep only a share of a file's bytes, or replace one byte at that place."""

    file: str
    share: float
    replacement: bytes | None

    def apply(self, files: Files) -> None:
        content = files.get(self.file, b"")
        place = int(self.share * len(content))
        tail = b"" if self.replacement is None else self.replacement + content[place + 1 :]
        if self.file in files:
            files[self.file] = content[:place] + tail


@dataclass(frozen=True)
class EditTensors(Edit):
    """Rename, add, remove or replace tensors; `kind` is a key of TENSOR_EDITS."""

    kind: str
    choice: int

    def apply(self, files: Files) -> None:
        try:
            tensors = load_tensors(files.get(WEIGHTS, b""))
        except Exception:  # an earlier edit damaged the file
            return
        if tensors:
            changed = TENSOR_EDITS[self.kind](tensors, self.choice)
            files[WEIGHTS] = _weights(changed)


@dataclass(frozen=True)
class Shard(Edit):
    """Split the weights into two shards and change the index; `kind` is a key of INDEX_EDITS."""

    kind: str

    def apply(self, files: Files) -> None:
        try:
            tensors = load_tensors(files.get(WEIGHTS, b""))
        except Exception:
            return
        names = sorted(tensors)
        shards = {f"model-0000{part + 1}-of-00002.safetensors": names[part::2] for part in range(2)}
        for shard, shard_names in shards.items():
            files[shard] = _weights({name: tensors[name] for name in shard_names})
        weight_map: Any = {name: shard for shard, part in shards.items() for name in part}
        del files[WEIGHTS]
        INDEX_EDITS[self.kind](files, weight_map, names)
        files.setdefault(INDEX, _text({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def _json(files: Files, file: str, default: Any) -> Any:
    try:
        return json.loads(files[file])
    except (KeyError, ValueError, RecursionError):
        return default


def _text(content: Any) -> bytes:
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _weights(tensors: Tensors) -> bytes:
    contiguous = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    return bytes(save_tensors(contiguous, {"format": "pt"}))


def _pick(tensors: Tensors, choice: int) -> str:
    names = sorted(tensors)
    return names[choice % len(names)]


def _with(tensors: Tensors, choice: int, change: Any) -> Tensors:
    name = _pick(tensors, choice)
    return tensors | {name: change(tensors[name])}


def _renamed(tensors: Tensors, choice: int) -> Tensors:
    old = _pick(tensors, choice)
    names = ("model." + old, old.removeprefix("model."), old + "s", old.upper(), "lm_head.bias")
    return {(names[choice % 5] if name == old else name): t for name, t in tensors.items()}


def _with_head(tensors: Tensors, choice: int) -> Tensors:
    table = tensors.get(TABLE, torch.ones(3, 4))
    heads = (table.clone(), table.flip(0), table[:-1], table.double(), table * float("nan"))
    return tensors | {HEAD: heads[choice % 5]}


def _head_only(tensors: Tensors, choice: int) -> Tensors:
    return {(HEAD if name == TABLE else name): t for name, t in tensors.items() if name != HEAD}


def _ignored_tensors(tensors: Tensors, choice: int) -> Tensors:
    names = (
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.layers.0.self_attn.masked_bias",
        "model.position_ids",
        "model.layers.7.mlp.up_proj.weight",
        "",
        "../outside",
    )
    return tensors | {names[choice % len(names)]: torch.ones(8)}


DTYPES = (
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.int64,
    torch.int8,
    torch.bool,
    torch.float8_e4m3fn,
)
SHAPES = (
    lambda t: t.T if t.ndim == 2 else t[:-1],
    lambda t: t.reshape(-1),
    lambda t: t[None],
    lambda t: t[:0],
    lambda t: t.reshape(-1)[0],
    lambda t: torch.cat([t, t]),
    lambda t: t[..., :-1],
)
NUMBERS = (float("nan"), float("inf"), 0.0, 1e38, -1e-30)

TENSOR_EDITS: dict[str, Any] = {
    "drop": lambda tensors, n: {k: t for k, t in tensors.items() if k != _pick(tensors, n)},
    "rename": _renamed,
    "without prefix": lambda tensors, n: {k.removeprefix("model."): t for k, t in tensors.items()},
    "with prefix": lambda tensors, n: {"model." + k: t for k, t in tensors.items()},
    "another prefix": lambda tensors, n: {"transformer." + k: t for k, t in tensors.items()},
    "head": _with_head,
    "head only": _head_only,
    "ignored": _ignored_tensors,
    "shape": lambda tensors, n: _with(tensors, n, SHAPES[n % len(SHAPES)]),
    "dtype": lambda tensors, n: _with(tensors, n, lambda t: t.to(DTYPES[n % len(DTYPES)])),
    "all dtypes": lambda tensors, n: {k: t.to(DTYPES[n % 3]) for k, t in tensors.items()},
    "numbers": lambda tensors, n: _with(tensors, n, lambda t: t.clone().fill_(NUMBERS[n % 5])),
    "none": lambda tensors, n: {},
}


def _index_that_leads(place: str) -> Any:
    def edit(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
        weight_map[names[0]] = place

    return edit


def _missing_shard(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    del files[weight_map[names[0]]]


def _tensor_in_two_shards(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    first, second = (load_tensors(files[weight_map[name]]) for name in names[:2])
    files[weight_map[names[1]]] = _weights(second | {names[0]: first[names[0]] + 1})


def _unnamed_tensor(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    del weight_map[names[0]]


def _promised_tensor(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    weight_map["model.layers.9.mlp.up_proj.weight"] = weight_map[names[0]]


def _no_map(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    files[INDEX] = _text({"weight_map": names})


def _both(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    """Another whole file beside the shards: transformers reads that."""
    tensors = {
        name: tensor
        for file in set(weight_map.values())
        for name, tensor in load_tensors(files[file]).items()
    }
    files[WEIGHTS] = _weights({name: tensor * 1.01 for name, tensor in tensors.items()})


INDEX_EDITS: dict[str, Any] = {
    "sound": lambda files, weight_map, names: None,
    "outside": _index_that_leads("../outside.safetensors"),
    "absolute": _index_that_leads("/etc/passwd"),
    "folder": _index_that_leads("."),
    "number": _index_that_leads(3),  # type: ignore[arg-type]
    "missing shard": _missing_shard,
    "twice": _tensor_in_two_shards,
    "unnamed": _unnamed_tensor,
    "promised": _promised_tensor,
    "no map": _no_map,
    "both": _both,
}

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
