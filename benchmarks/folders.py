"""Creates the packed folders that benchmarks run, once in the cache: a real model, and models with
random codes.

Speed does not depend on the values of weights, so it can be measured with random codes. `llama_1b`
is the configuration of a Llama 3.2 with a billion weights. Its rows are long enough for every
format of our engine and of llama.cpp.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig

from featherweight.interchange.cache import build_once, cache_folder
from featherweight.interchange.shards import LazyTensor, write_checkpoint
from featherweight.models.tensors import DTYPES
from featherweight.quantization.formats.base import Format
from featherweight.quantization.layouts.description import Description, StoredMatrix

MODEL = "SmolLM2-135M-Instruct"
MATRICES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MATRICES += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def quantized_folder(name: str, format: str, bits: int, head: int = 4) -> Path:
    """The folder of SmolLM2 in the format `format`, with embedding and head in `head` bits. The
    first call quantizes it, which takes minutes.
    """
    out = cache_folder() / "bench" / f"smollm2-{name}"
    if not (out / "model.safetensors").is_file():
        options = [
            "--preset",
            "fast",
            "--bits",
            str(bits),
            "--head-bits",
            str(head),
            "--set",
            f"plan.*={format}",
        ]
        command = [
            sys.executable,
            "-m",
            "featherweight",
            "quantize",
            MODEL,
            *options,
            "--no-evaluate",
            "--out",
            str(out),
        ]
        subprocess.run(command, check=True)
    return out


def llama_1b() -> LlamaConfig:
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        vocab_size=128256,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=True,
    )


def packed_folder(
    config: LlamaConfig, folder: Path, body: Format, table: Format, seed: int = 0
) -> Path:
    """A packed folder for `config` with random codes: `body` is the format of the blocks, `table`
    that of the embedding. Inputs are rotated, as in every preset except `portable`.
    """

    def make(path: Path) -> None:
        layers = _layers(config, body, table)
        generator = torch.Generator().manual_seed(seed)
        tensors = [
            LazyTensor(
                f"{name}.{part}", shape, dtype, lambda s=shape, d=dtype: _random(s, d, generator)
            )
            for name, layer in layers.items()
            for part, (shape, dtype_name) in layer.stored().items()
            for dtype in (DTYPES[dtype_name],)
        ]
        tensors += [
            LazyTensor(
                f"{name}.weight", (0,), torch.float16, lambda: torch.zeros(0, dtype=torch.float16)
            )
            for name in layers
        ]
        tensors += [
            LazyTensor(name, shape, torch.float32, lambda s=shape: torch.ones(s))
            for name, shape in _norms(config)
        ]
        files = write_checkpoint(path, tensors)
        description = Description(layers, "lm_head", files)
        settings = {**config.to_dict(), "quantization_config": description.to_dict()}
        (path / "config.json").write_text(json.dumps(settings))

    return build_once(folder, make)


def _layers(config: LlamaConfig, body: Format, table: Format) -> dict[str, StoredMatrix]:
    hidden, ffn, width = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * width, config.num_key_value_heads * width
    shapes = (
        (queries, hidden),
        (keys, hidden),
        (keys, hidden),
        (hidden, queries),
        (ffn, hidden),
        (ffn, hidden),
    )
    shapes += ((hidden, ffn),)
    matrices = {"model.embed_tokens": StoredMatrix(table, (config.vocab_size, hidden), True)}
    for index in range(config.num_hidden_layers):
        for name, shape in zip(MATRICES, shapes, strict=True):
            matrices[f"model.layers.{index}.{name}"] = StoredMatrix(body, shape, True)
    return matrices


def _norms(config: LlamaConfig) -> list[tuple[str, tuple[int]]]:
    names = ["model.norm.weight"]
    for index in range(config.num_hidden_layers):
        names += [
            f"model.layers.{index}.{name}.weight"
            for name in ("input_layernorm", "post_attention_layernorm")
        ]
    return [(name, (config.hidden_size,)) for name in names]


def _random(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype, generator=generator)
    return torch.full(shape, 0.02, dtype=dtype)
