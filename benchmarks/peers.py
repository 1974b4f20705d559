"""llama.cpp as the rival of a benchmark: built from the source package of llama-cpp-python, and its
files.

    pip download --no-deps --no-binary :all: llama-cpp-python     # an sdist that holds llama.cpp in vendor/
    cmake -DGGML_NATIVE=ON -DGGML_OPENMP=OFF ... && cmake --build . --target llama-bench llama-quantize

built once into the cache of featherweight (a quarter of an hour on two cores), and once more for
AVX2 alone where an AVX-512 processor stands in for one without. `FEATHERWEIGHT_LLAMA_BENCH` names a
llama-bench that is there already (a llama-quantize is then expected beside it),
`FEATHERWEIGHT_LLAMA_BENCH_AVX2` the one for AVX2. Real weights are handed over in float32 and
quantized by llama-quantize; random models are written as raw blocks, with scales that are finite.
No file has a tokenizer: llama-bench feeds random tokens.
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
# Where the two-byte floats of a block lie; all its other bytes may be anything.
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
    """llama.cpp as programs, and what they were made of."""

    bench: LlamaBench
    quantize: Path
    facts: dict[str, Any]


@dataclass(frozen=True)
class File:
    """A GGUF file; without a tokenizer its size is what its tensors take, to a thousandth."""

    name: str
    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def build() -> Build:
    """The programs for this processor, found or built."""
    return _found_or_built(VARIABLE, "llama.cpp", NATIVE)


def build_avx2() -> Build:
    """The programs as a processor without AVX-512 would have them."""
    return _found_or_built(AVX2_VARIABLE, "llama.cpp-avx2", AVX2)


def _found_or_built(variable: str, name: str, instructions: tuple[str, ...]) -> Build:
    named = os.environ.get(variable)
    if named:
        folder = Path(named).parent
        # llama-bench's own commit is that of whatever repository the sources lay in, so it is not
        # recorded.
        facts: dict[str, Any] = {
            "program": Path(named).name,
            "source": "given",
            **_cache_options(folder.parent),
        }
    else:
        home = build_once(
            cache_folder() / name, lambda beside: _build(beside, (*instructions, *OPTIONS))
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
    with tarfile.open(archive) as opened:
        opened.extractall(home, filter="data")
    source = next(home.glob("*/vendor/llama.cpp"))
    made = home / "build"
    subprocess.run(["cmake", "-S", str(source), "-B", str(made), *options], check=True)
    targets = ["llama-bench", "llama-quantize"]
    subprocess.run(
        ["cmake", "--build", str(made), "-j", str(os.cpu_count()), "--target", *targets], check=True
    )
    (home / "bin").mkdir()
    for target in targets:
        (made / "bin" / target).rename(home / "bin" / target)
    facts = {"source": archive.name.removesuffix(".tar.gz"), "options": list(options)}
    (home / "facts.json").write_text(json.dumps(facts))


def _cache_options(build_folder: Path) -> dict[str, Any]:
    """What a build that lies there was configured with."""
    cache = build_folder / "CMakeCache.txt"
    if not cache.is_file():
        return {}
    wanted = "GGML_NATIVE GGML_AVX2 GGML_AVX512 GGML_OPENMP GGML_CPU_REPACK GGML_LLAMAFILE CMAKE_BUILD_TYPE"
    names = "|".join([*wanted.split(), "CMAKE_HOME_DIRECTORY"])
    found = dict(re.findall(rf"^({names}):\w+=(.*)$", cache.read_text(), re.MULTILINE))
    package = re.search(r"llama_cpp_python-[\d.]+\d", found.pop("CMAKE_HOME_DIRECTORY", ""))
    return {
        "options": [f"{key}={value}" for key, value in found.items()],
        "source": package[0] if package else "given",
    }


def quantized(programs: Build, model: str, folder: Path, kind: str, pure: bool) -> File:
    """`model`'s real weights as llama-quantize stores them; `pure`: every matrix in that type, no
    mixture.
    """
    name = f"{kind}{'-pure' if pure else ''}"
    path = folder / f"{name}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        full = folder / "full.gguf"
        if not full.exists():
            write_float(model, full)
        part = path.with_suffix(".part")
        options = ["--pure"] if pure else []
        subprocess.run(
            [programs.quantize, *options, full, part, kind, "2"], check=True, capture_output=True
        )
        part.rename(path)
    return File(name, path)


def write_float(model: str, path: Path) -> None:
    """The model's weights in float32, in the order of rows that llama.cpp rotates."""
    loaded, _ = loading.load(model)
    config = loaded.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    part = path.with_suffix(".part")
    with closing(gguf.GGUFWriter(part, "llama")) as writer:
        _head(writer, config, gguf.LlamaFileType.ALL_F32)
        for name, tensor in loaded.state_dict().items():
            stored = names.get_name(name, try_suffixes=(".weight",))
            if stored is None or (name == "lm_head.weight" and config.tie_word_embeddings):
                continue
            heads = {
                "q_proj": config.num_attention_heads,
                "k_proj": config.num_key_value_heads,
            }.get(name.split(".")[-2])
            if heads:
                tensor = (
                    tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
                )
            writer.add_tensor(stored, tensor.float().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    part.rename(path)


def random_file(config: Any, folder: Path, kind: str, table: str, seed: int = 0) -> File:
    """A model of `config`'s shape whose blocks are random bytes of type `kind`, its table of type
    `table`.
    """
    name = f"{kind}" if kind == table else f"{kind}+{table}"
    path = folder / f"{name}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(seed)
        part = path.with_suffix(".part")
        with closing(gguf.GGUFWriter(part, "llama")) as writer:
            _head(writer, config, gguf.LlamaFileType[f"MOSTLY_{kind}"])
            for stored, shape in _tensors(config):
                if len(shape) == 1:
                    writer.add_tensor(stored, np.ones(shape, np.float32))
                else:
                    used = table if stored.startswith("token_embd") else kind
                    data = _blocks(random, shape, used)
                    writer.add_tensor(stored, data, raw_dtype=gguf.GGMLQuantizationType[used])
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
    found: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (config.vocab_size, hidden))]
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
        found += [(f"blk.{index}.{name}.weight", shape) for name, shape in layer.items()]
    return [*found, ("output_norm.weight", (hidden,))]


def _blocks(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    data = random.integers(0, 256, (math.prod(shape) // block, size), dtype=np.uint8)
    small = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
    for place in FLOATS[kind]:
        data[:, place : place + 2] = small
    return data.reshape(shape[0], -1)
