"""Builds the programs of llama.cpp from the source package of llama-cpp-python, and writes files
for them.

    pip download --no-deps --no-binary :all: llama-cpp-python     # holds llama.cpp in vendor/
    cmake -DGGML_NATIVE=ON -DGGML_OPENMP=OFF ...
    cmake --build . --target llama-bench llama-quantize

The programs are built once in the cache of featherweight, which takes a quarter of an hour on two
cores. A processor with AVX-512 needs a second build, limited to AVX2, for the comparison on AVX2.
`FEATHERWEIGHT_LLAMA_BENCH` names an existing llama-bench to use instead (llama-quantize must be in
the same folder), `FEATHERWEIGHT_LLAMA_BENCH_AVX2` the one for AVX2. Real weights are written in
float32 and quantized by llama-quantize. Random models are written as raw blocks with finite scales.
No file has a tokenizer, because llama-bench uses random tokens.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tarfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from featherweight.interchange import loading
from featherweight.interchange.cache import build_once, cache_folder
from featherweight.interchange.gguf.metadata_writer import add_metadata, read_exportable
from featherweight.interchange.gguf.tensors import permuted_heads, row_permutation
from featherweight.profiling.llama_cpp import VARIABLE, LlamaBench

PACKAGE = "llama-cpp-python"
AVX2_VARIABLE = f"{VARIABLE}_AVX2"
NATIVE = ("-DGGML_NATIVE=ON",)
AVX2 = ("-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_BMI2=ON")
OPTIONS = (
    *("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DGGML_OPENMP=OFF"),
    *(
        "-DLLAMA_CURL=OFF",
        "-DLLAMA_OPENSSL=OFF",
        "-DLLAMA_BUILD_TESTS=OFF",
        "-DLLAMA_BUILD_EXAMPLES=OFF",
    ),
    *("-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_TOOLS=ON"),
)
# Offsets of the fp16 numbers in a block of each type. All other bytes may have any value.
FLOATS = {
    "Q4_0": (0,),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "IQ2_XXS": (0,),
    "Q6_K": (208,),
    "Q4_K": (0, 2),
}


@dataclass(frozen=True)
class Build:
    """The programs of a build of llama.cpp, and facts about the build for the record."""

    bench: LlamaBench
    quantize: Path
    facts: dict[str, Any]


@dataclass(frozen=True)
class File:
    """A GGUF file. It has no tokenizer, so its size is that of its tensors, to a thousandth."""

    name: str
    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def build() -> Build:
    """The programs for this processor: existing ones, or a new build."""
    return _find_or_build(VARIABLE, "llama.cpp", NATIVE)


def build_avx2() -> Build:
    """The programs for a processor without AVX-512."""
    return _find_or_build(AVX2_VARIABLE, "llama.cpp-avx2", AVX2)


def _find_or_build(variable: str, name: str, instructions: tuple[str, ...]) -> Build:
    program = os.environ.get(variable)
    if program:
        folder = Path(program).parent
        # The commit that llama-bench reports is not recorded: it is that of the git repository in
        # which the sources were built, which may be another one.
        facts: dict[str, Any] = {
            "program": Path(program).name,
            "source": "given",
            **_cache_options(folder.parent),
        }
    else:
        home = build_once(
            cache_folder() / name, lambda temporary: _build(temporary, (*instructions, *OPTIONS))
        )
        folder, facts = home / "bin", json.loads((home / "facts.json").read_text())
    return Build(LlamaBench(folder / "llama-bench"), folder / "llama-quantize", facts)


def _build(home: Path, options: tuple[str, ...]) -> None:
    download = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-binary",
        ":all:",
        "-d",
        str(home),
        PACKAGE,
    ]
    subprocess.run(download, check=True)
    archive = next(home.glob("*.tar.gz"))
    with tarfile.open(archive) as sdist:
        sdist.extractall(home, filter="data")
    source = next(home.glob("*/vendor/llama.cpp"))
    build_folder = home / "build"
    subprocess.run(["cmake", "-S", str(source), "-B", str(build_folder), *options], check=True)
    targets = ["llama-bench", "llama-quantize"]
    subprocess.run(
        ["cmake", "--build", str(build_folder), "-j", str(os.cpu_count()), "--target", *targets],
        check=True,
    )
    (home / "bin").mkdir()
    for target in targets:
        (build_folder / "bin" / target).rename(home / "bin" / target)
    facts = {"source": archive.name.removesuffix(".tar.gz"), "options": list(options)}
    (home / "facts.json").write_text(json.dumps(facts))


def _cache_options(build_folder: Path) -> dict[str, Any]:
    """The options that an existing build was configured with."""
    cache = build_folder / "CMakeCache.txt"
    if not cache.is_file():
        return {}
    names = "GGML_NATIVE GGML_AVX2 GGML_AVX512 GGML_OPENMP GGML_CPU_REPACK GGML_LLAMAFILE"
    names += " CMAKE_BUILD_TYPE CMAKE_HOME_DIRECTORY"
    pattern = rf"^({names.replace(' ', '|')}):\w+=(.*)$"
    options = dict(re.findall(pattern, cache.read_text(), re.MULTILINE))
    package = re.search(r"llama_cpp_python-[\d.]+\d", options.pop("CMAKE_HOME_DIRECTORY", ""))
    return {
        "options": [f"{key}={value}" for key, value in options.items()],
        "source": package[0] if package else "given",
    }


def quantized_file(
    programs: Build,
    model: str,
    folder: Path,
    kind: str,
    pure: bool,
    *,
    table: str | None = None,
    importance: Path | None = None,
) -> File:
    """`model`'s real weights as llama-quantize stores them; `pure`: every matrix in that type, no
    mixture.

    table: the type of the embedding table, when it is not llama-quantize's own choice. importance:
    a file with an importance matrix. Raises CalledProcessError, whose `stderr` says why, when
    llama-quantize refuses.
    """
    name = f"{kind}{'-pure' if pure else ''}{f'+{table}' if table else ''}"
    name += "-imatrix" if importance else ""
    path = folder / f"{name}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        full = float_file(model, folder).path
        part = path.with_suffix(".part")
        options: list[str | Path] = ["--pure"] if pure else []
        options += ["--token-embedding-type", table.lower()] if table else []
        options += ["--imatrix", importance] if importance else []
        command = [programs.quantize, *options, full, part, kind, "2"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError:
            part.unlink(missing_ok=True)
            raise
        part.rename(path)
    return File(name, path)


def float_file(model: str, folder: Path) -> File:
    """`model`'s weights in float32, written once into `folder`."""
    path = folder / "full.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_float(model, path)
    return File("F32", path)


def write_float(model: str, path: Path) -> None:
    """Write the weights of the model in float32, with the rows of q and k in llama.cpp's order."""
    source, _ = loading.load(model)
    config = source.config
    numbers = read_exportable(config)
    family = numbers.family
    part = path.with_suffix(".part")
    with closing(gguf.GGUFWriter(part, "llama")) as writer:
        _head(writer, config, gguf.LlamaFileType.ALL_F32)
        for name, tensor in source.state_dict().items():
            gguf_name = family.gguf_tensor(name)
            if gguf_name is None or (name == "lm_head.weight" and config.tie_word_embeddings):
                continue
            heads = permuted_heads(name, family, numbers.num_heads, numbers.num_key_heads)
            if heads is not None:
                tensor = tensor[row_permutation(len(tensor), heads)]
            writer.add_tensor(gguf_name, tensor.float().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    part.rename(path)


def random_file(config: Any, folder: Path, kind: str, table: str, seed: int = 0) -> File:
    """The file of a model with the shapes of `config` and random blocks: matrices of type `kind`,
    the embedding of type `table`.
    """
    name = f"{kind}" if kind == table else f"{kind}+{table}"
    path = folder / f"{name}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(seed)
        part = path.with_suffix(".part")
        with closing(gguf.GGUFWriter(part, "llama")) as writer:
            _head(writer, config, gguf.LlamaFileType[f"MOSTLY_{kind}"])
            for tensor_name, shape in _tensors(config):
                if len(shape) == 1:
                    writer.add_tensor(tensor_name, np.ones(shape, np.float32))
                else:
                    type_ = table if tensor_name.startswith("token_embd") else kind
                    data = _blocks(random, shape, type_)
                    raw_dtype = gguf.GGMLQuantizationType[type_]
                    writer.add_tensor(tensor_name, data, raw_dtype=raw_dtype)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        part.rename(path)
    return File(name, path)


def _head(writer: Any, config: Any, file_type: Any) -> None:
    writer.add_file_type(int(file_type))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_metadata(writer, read_exportable(config))
    writer.add_tokenizer_model("none")


def _tensors(config: Any) -> list[tuple[str, tuple[int, ...]]]:
    hidden, ffn, width = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * width, config.num_key_value_heads * width
    tensors: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (config.vocab_size, hidden))
    ]
    for index in range(config.num_hidden_layers):
        layer: dict[str, tuple[int, ...]] = {
            "attn_norm": (hidden,),
            "attn_q": (queries, hidden),
            "attn_k": (keys, hidden),
            "attn_v": (keys, hidden),
            "attn_output": (hidden, queries),
            "ffn_norm": (hidden,),
            "ffn_gate": (ffn, hidden),
            "ffn_up": (ffn, hidden),
            "ffn_down": (hidden, ffn),
        }
        tensors += [(f"blk.{index}.{name}.weight", shape) for name, shape in layer.items()]
    return [*tensors, ("output_norm.weight", (hidden,))]


def _blocks(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    data = random.integers(0, 256, (math.prod(shape) // block, size), dtype=np.uint8)
    small = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
    for place in FLOATS[kind]:
        data[:, place : place + 2] = small
    return data.reshape(shape[0], -1)
