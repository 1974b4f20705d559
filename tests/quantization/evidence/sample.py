"""The content of a results.json as a run of SmolLM2-135M at 3 bits writes it: 210 layers, one
table, hostile text.
"""

from __future__ import annotations

import copy
import math
import random
from typing import Any

LINEARS = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}
HARDER = {
    "self_attn.q_proj": 0.7,
    "self_attn.k_proj": 0.6,
    "self_attn.v_proj": 1.5,
    "mlp.down_proj": 1.8,
}
MODEL = {
    "name": "SmolLM2-135M-Instruct",
    "num_parameters": 134_515_008,
    "source_file_bytes": 269_060_552,
    "source_bits": 16.0,
    "licence": "apache-2.0",
    "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
CALIBRATION = {
    "sources": [
        {"name": "wikipedia", "licence": "CC-BY-SA-4.0", "sequences": 96, "tokens": 24_576},
        {"name": "gutenberg", "licence": "public domain", "sequences": 64, "tokens": 16_384},
        {"name": "python", "licence": "PSF-2.0", "sequences": 48, "tokens": 12_288},
        {"name": "chat", "licence": "Apache-2.0", "sequences": 48, "tokens": 12_288},
    ],
    "sequences": 256,
    "length": 256,
    "seed": 0,
    "tokens_sha256": "3f1f6a0c2d8b7e95a4c1b0d9e8f7061524334251607f8e9dacbbcad9e8f70615",
    "bos": False,
    "template": "the tokenizer's chat template, for dialogue",
}
SECONDS = {
    "load": 2.1,
    "curvature": 148.2,
    "quantize": 96.4,
    "evaluate": 74.9,
    "blame": 58.8,
    "samples": 9.4,
}
MACHINE = {
    "system": "Linux x86_64",
    "cpu": "AMD EPYC 9B14",
    "cores": 2,
    "memory_bytes": 25_000_000_000,
    "load_average": 0.31,
}
VERSIONS = {
    "python": "3.11.7",
    "featherweight": "0.1.0",
    "torch": "2.13.0+cpu",
    "transformers": "5.24.0",
}
SAMPLES = [
    {
        "question": "Why is the sky blue?",
        "original": "The sky appears blue because of a phenomenon called Rayleigh scattering. When "
        "sunlight enters the Earth's atmosphere, it meets molecules of nitrogen and oxygen, which "
        "scatter the short wavelengths of light, such as blue and violet, far more than the long "
        "ones.",
        "light": "The sky is blue because of the way that light scatters in the atmosphere. "
        "Sunlight is made of all colours, and the small molecules of the air scatter blue light "
        "more than red.\n\n1. Blue light has a short wavelength.\n2. It is scattered in all "
        "directions.",
    },
    {
        "question": "Write a line of HTML that runs <script>alert(1)</script> & more",
        "original": "<img src=x onerror=alert(1)> \u202ereversed\u202c",
        "light": "</pre></td></table><script src='//example.org/x.js'></script> " + "a" * 120,
    },
]


def _fault(original: float, light: float, low: float, high: float, prompts: int = 100) -> Any:
    difference = {"mean": light - original, "low": low, "high": high}
    rates = {"prompts": prompts, "original": original, "light": light, "difference": difference}
    return {**rates, "flag": low > 0}


FREE_RUNNING = {
    "prompts": 100,
    "kinds": {"format": 30, "question": 20, "prose": 12, "code": 10, "conversation": 28},
    "forms_checked": True,
    "level": 0.9875,
    "rates": {
        "loops": _fault(0.21, 0.27, -0.041, 0.163),
        "endless": _fault(0.36, 0.38, -0.063, 0.103),
        "empty": _fault(0.0, 0.0, -0.059, 0.059),
        "form_breaks": _fault(0.4, 0.5, -0.151, 0.338, 30),
    },
    "num_flags": 0,
    "equal_answers": 0.14,
    "mean_tokens": {"original": 139.3, "light": 142.1},
    "samples": [
        {
            "kind": "language",
            "prompt": "¿Cuál es la capital de <b>España</b>?",
            "original": "La capital de España es Madrid.",
            "light": "de la capital de la capital de la capital of </pre><script>x()</script>",
            "original_faults": [],
            "light_faults": ["loops", "endless"],
        }
    ],
    "max_tokens": 256,
    "engines": {
        "original": "SmolLM2-135M-Instruct, 32.01 bits a weight, native (avx512)",
        "light": "light, 4.09 bits a weight, native (avx512)",
    },
    "seconds": {"original": 0.0, "light": 17.1},
    "original_cached": True,
}


def results(blocks: int = 30, bits: int = 3) -> dict[str, Any]:
    """One whole results.json; fewer `blocks` for tests that need only the shape of it."""
    rng = random.Random(0)
    layers = [_layer(rng, block, name, bits) for block in range(blocks) for name in LINEARS]
    _gate(layers)
    layers.append(_table())
    fixed = {
        "model": MODEL,
        "recipe": _recipe(bits),
        "size": _size(layers),
        "quality": _quality(rng),
        "layers": layers,
        "calibration": CALIBRATION,
        "seconds": SECONDS,
        "peak_memory_bytes": 3_412_000_000,
        "machine": MACHINE,
        "versions": VERSIONS,
        "warnings": [
            "model.layers.0.mlp.down_proj: the output side hurt held-out text and was left out"
        ],
        "samples": SAMPLES,
        "free_running": FREE_RUNNING,
    }
    return copy.deepcopy(fixed)


def _recipe(bits: int) -> dict[str, Any]:
    return {
        "model": "SmolLM2-135M-Instruct",
        "preset": "balanced",
        "bits": bits,
        "seed": 0,
        "plan": {"tables": "Int(bits=8)", "*": f"Trellis(bits={bits})"},
        "rounding": "YAQA()",
        "curvature": "FisherA()",
        "transform": "Hadamard()",
        "calibration": {"mix": "shipped", "count": 256, "length": 256, "seed": 0, "files": []},
        "gate": {"count": 16},
        "evaluation": {
            "text": "wikitext2_test",
            "windows": 16,
            "length": 1024,
            "blocks_seconds": 60,
        },
    }


def _quality(rng: random.Random) -> dict[str, Any]:
    windows = [round(0.0991 * math.exp(rng.gauss(0, 0.12)), 9) for _ in range(16)]
    mean = sum(windows) / 16
    return {
        "text": {
            "name": "WikiText-2 test",
            "windows": 16,
            "length": 1024,
            "tokens": 16_384,
            "bos": False,
            "first_ids": [
                198,
                446,
                4833,
                446,
                30,
                198,
                216,
                198,
                446,
                4833,
                446,
                30,
                25,
                281,
                1596,
                2364,
            ],
        },
        "level": 0.95,
        "resamples": 2000,
        "original": {"perplexity": {"mean": 19.86548, "low": 16.2231, "high": 23.9972}},
        "light": {"perplexity": {"mean": 21.93127, "low": 17.8412, "high": 26.5413}},
        "perplexity_ratio": {"mean": 1.103989, "low": 1.0951, "high": 1.11342},
        "kl": {
            "mean": mean,
            "low": mean * 0.95,
            "high": mean * 1.053,
            "median": 0.048213,
            "p99": 0.71243,
        },
        "kl_self": 0.0,
        "top1": {"mean": 0.86133, "low": 0.85301, "high": 0.86987},
        "kl_windows": windows,
    }


def _layer(rng: random.Random, block: int, name: str, bits: int) -> dict[str, Any]:
    rows, columns = LINEARS[name]
    plain = 0.0187 * math.exp(rng.gauss(0, 0.02))
    weighted = (
        plain
        * HARDER.get(name, 1.0)
        * math.exp(rng.gauss(-0.5, 0.25))
        * (6.0 if block == 0 else 1.0)
    )
    return {
        "name": f"model.layers.{block}.{name}",
        "format": f"Trellis(bits={bits})",
        "shape": [rows, columns],
        "weights": rows * columns,
        "rounding": "YAQA()",
        "bits": {
            "codes": rows * columns * bits,
            "scales": 16 * rows,
            "zeros": 0,
            "signs": 8 * -(-columns // 8),
            "tables": 0,
            "padding": 0,
        },
        "damping": 0.01,
        "output_damping": 0.5,
        "error_plain": plain,
        "error_weighted": weighted,
        "predicted_kl": weighted * 0.02 * rng.uniform(0.5, 1.5),
        "kl_block": None
        if block in (17, 21)
        else 0.0031 * (7.0 if block == 0 else 1.0) * (1 + 0.4 * math.sin(block)),
        "gate": 0.8412,
        "seconds": round(rows * columns / 2.1e6, 4),
        "fallbacks": [],
    }


def _gate(layers: list[dict[str, Any]]) -> None:
    first = next(layer for layer in layers if layer["name"].endswith("0.mlp.down_proj"))
    first |= {"gate": 1.07, "output_damping": None, "fallbacks": ["output side left out"]}


def _table() -> dict[str, Any]:
    return {
        "name": "model.embed_tokens",
        "format": "Int(bits=8)",
        "shape": [49152, 576],
        "weights": 49152 * 576,
        "rounding": "Nearest()",
        "bits": {
            "codes": 49152 * 576 * 8,
            "scales": 49152 * 16,
            "zeros": 0,
            "signs": 0,
            "tables": 0,
            "padding": 0,
        },
        "damping": None,
        "output_damping": None,
        "error_plain": 0.00007,
        "error_weighted": None,
        "predicted_kl": None,
        "kl_block": None,
        "gate": None,
        "seconds": 0.412,
        "fallbacks": [],
    }


def _size(layers: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = ("codes", "scales", "zeros", "signs", "tables", "padding")
    spent = {kind: sum(layer["bits"][kind] for layer in layers) // 8 for kind in kinds}
    spent["tables"] += 1024
    spent["other"] = 61 * 576 * 2 + 48_312
    inside = [layer for layer in layers if "layers" in layer["name"]]
    file_bytes = sum(spent.values())
    return {
        "file_bytes": file_bytes,
        "bpw_codes": _bpw(layers, "codes"),
        "bpw_layers": _bpw(layers, *kinds),
        "bpw_file": 8 * file_bytes / 134_515_008,
        "bpw_codes_blocks": _bpw(inside, "codes"),
        "bpw_layers_blocks": _bpw(inside, *kinds),
        "bytes": spent,
    }


def _bpw(layers: list[dict[str, Any]], *kinds: str) -> float:
    return sum(layer["bits"][kind] for layer in layers for kind in kinds) / sum(
        layer["weights"] for layer in layers
    )
