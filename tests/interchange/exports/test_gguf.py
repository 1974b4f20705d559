"""GGUF exports: the same bits through the gguf package, through transformers and, where it is
there, llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporting
import gguf
import numpy as np
import pytest
import tiny
import torch
from tokenizers import normalizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from featherweight.base.errors import UsageError
from featherweight.interchange.gguf.blocks import choose_type, encode
from featherweight.interchange.gguf.convert import convert
from featherweight.interchange.gguf.tokenizer import RULES, pre_tokenizer
from featherweight.interchange.packed import folder as packed
from featherweight.interchange.packed.model import PackedModel
from featherweight.quantization.formats import Int, Ternary, Trellis
from featherweight.quantization.formats.base import Format, Integers
from featherweight.quantization.layers import decoded
from featherweight.workflows.export_folder import export_folder

TEXT = "In 1905 the fox:  12 <|im_end|>\n 2024"
SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    **tiny.common(),
}


def qwen_tokenizer() -> Any:
    """The tiny tokenizer, cutting text first as Qwen's do: transformers' reader of Qwen files knows
    no other way.
    """
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer(RULES["qwen2"])
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def qwen2() -> tuple[Any, Any]:
    return tiny.make(
        Qwen2ForCausalLM, Qwen2Config(tie_word_embeddings=False, **SHAPE), 0
    ), qwen_tokenizer()


def qwen3() -> tuple[Any, Any]:
    # Heads of 128, the one width that transformers' reader of Qwen 3 files knows.
    config = Qwen3Config(head_dim=128, tie_word_embeddings=False, **SHAPE)
    return tiny.make(Qwen3ForCausalLM, config, 0), qwen_tokenizer()


def gemma(model: Any, config: Any, **more: Any) -> tuple[Any, Any]:
    # As for Qwen 3: transformers' reader takes the scale of attention for that of heads of 256.
    made = config(
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=16,
        tie_word_embeddings=True,
        **SHAPE,
        **more,
    )
    return tiny.make(model, made, 0), tiny.tokenizer()


def gemma2() -> tuple[Any, Any]:
    return gemma(Gemma2ForCausalLM, Gemma2Config)


def gemma3() -> tuple[Any, Any]:
    return gemma(Gemma3ForCausalLM, Gemma3TextConfig)


def stretched(kind: str, **settings: float) -> Callable[[], tuple[Any, Any]]:
    """A llama whose rotary frequencies are scaled."""

    def made() -> tuple[Any, Any]:
        rope = {"rope_type": kind, "rope_theta": 50000.0, **settings}
        config = LlamaConfig(
            tie_word_embeddings=True, rope_parameters=rope, **{**SHAPE, "hidden_size": 128}
        )
        return tiny.make(LlamaForCausalLM, config, 0), tiny.tokenizer()

    made.__name__ = kind
    return made


def llama3(context: int) -> Callable[[], tuple[Any, Any]]:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return stretched("llama3", **scaling, original_max_position_embeddings=context)


LINEAR = stretched("linear", factor=4.0)

FAMILIES = [tiny.llama, qwen2, qwen3, gemma2, gemma3]


@pytest.mark.parametrize("make", FAMILIES)
def test_transformers_reads_the_same_model(
    tmp_path: Path, make: Callable[[], Any], ids: torch.Tensor
) -> None:
    pytest.importorskip("accelerate")  # transformers reads GGUF with it only
    plan = {
        "*.q_proj": Int(bits=4, group=32, symmetric=False, portable=True),
        "*": Int(bits=4, group=32),
    }
    folder = exporting.pack(tmp_path / "packed", make, plan, tables=Int(bits=8))
    made = export_folder(folder, "gguf", tmp_path / "m.gguf")
    expected = packed.load(folder)
    tables = 1 if expected.config.tie_word_embeddings else 2
    assert {kind: n for kind, n in made.types.items() if kind != "F32"} == {
        "Q4_0": 12,
        "Q4_1": 2,
        "Q8_0": tables,
    }
    read, info = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with decoded(expected):
        for name, module in read.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                assert torch.equal(module.weight, expected.get_submodule(name).dense()), name
        # Subtracting the one that was added to Gemma's norms loses their last bits.
        close = {"atol": 1e-4} if "gemma" in expected.config.model_type else {"atol": 0, "rtol": 0}
        assert torch.allclose(read(ids).logits, expected(ids).logits, **close)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    assert tokenizer(TEXT).input_ids == AutoTokenizer.from_pretrained(folder)(TEXT).input_ids
    assert tokenizer.chat_template == tiny.CHAT


@pytest.mark.parametrize("make", [tiny.llama, tiny.qwen3, llama3(8192), LINEAR])
def test_our_own_reader_undoes_it(tmp_path: Path, make: Callable[[], Any]) -> None:
    folder = exporting.pack(tmp_path / "packed", make, {"*": Int(bits=8, group=32)}, tables=None)
    made = export_folder(folder, "gguf", tmp_path / "m.gguf")
    (tmp_path / "back").mkdir()
    convert(made.path, tmp_path / "back")
    back, model = AutoModelForCausalLM.from_pretrained(tmp_path / "back"), PackedModel(folder)
    assert all(torch.equal(back.state_dict()[name], model.read(name)) for name in model.names)
    assert back.config.rope_parameters == model.config.rope_parameters
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "back")(TEXT).input_ids
        == tiny.tokenizer()(TEXT).input_ids
    )


@pytest.mark.parametrize(
    ("format", "columns", "kind"),
    [
        (Int(bits=4, group=32), 96, "Q4_0"),
        (Int(bits=4, group=96), 192, "Q4_0"),
        (Int(bits=4), 96, "Q4_0"),
        (Int(bits=3, group=32), 96, "Q4_0"),
        (Int(bits=2, group=32), 96, "Q4_0"),
        (Int(bits=2), 256, "TQ2_0"),
        (Int(bits=2, group=256), 768, "TQ2_0"),
        (Int(bits=2, group=128), 256, "Q4_0"),
        (Int(bits=5, group=64), 128, "Q8_0"),
        (Int(bits=8), 64, "Q8_0"),
        (Int(bits=4, group=32, symmetric=False, portable=True), 96, "Q4_1"),
        (Int(bits=2, symmetric=False, portable=True), 64, "Q4_1"),
    ],
    ids=repr,
)
def test_blocks_decode_to_the_same_bits(format: Format, columns: int, kind: str) -> None:
    matrix, weight = quantized(format, 32, columns)
    assert choose_type(matrix) == kind
    rows = encode(matrix, kind)
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    assert rows.shape == (32, columns // block * size)
    read = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind])
    assert np.array_equal(read, weight.numpy())
    if isinstance(matrix.zero, int):
        assert (
            len(np.unique((matrix.codes.to(torch.int16) - matrix.zero).numpy())) > 2
        )  # more than the easy codes


def quantized(format: Format, rows: int, columns: int) -> tuple[Integers, torch.Tensor]:
    """Random weights in `format`, every code used, as integers and as numbers."""
    w = (
        torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
        * torch.logspace(-2, 2, rows)[:, None]
    )
    params = format.fit(w).stored()
    index = torch.arange(rows * columns)
    _, codes = format.snap(w.reshape(-1, 1, 1), params, index // columns, index % columns)
    weight = format.pack(codes, params, (rows, columns))
    matrix = format.integers(weight)
    assert matrix is not None
    return matrix, weight.dense()


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        export_folder(folder, "gguf", folder.parent / "out.gguf")
    assert error.value.exit_code == 2
    assert not list(folder.parent.glob("*.gguf*"))


@pytest.mark.parametrize(
    ("format", "message"),
    [
        (
            Trellis(bits=2),
            r"layers.0.self_attn.q_proj.weight: no GGUF type holds Trellis\(bits=2\); .* Int\(bits=4",
        ),
        (Int(bits=4, group=16), r"groups of 16 are narrower .*group=32 \(Q4_0\) is the nearest"),
        (
            Int(bits=5, symmetric=False),
            r"zero points of more than 4 bits; symmetric 8 bits \(Q8_0\) are the nearest",
        ),
        (Int(bits=4, symmetric=False), r"not exact in fp16, as Q4_1 needs; portable=True"),
    ],
    ids=repr,
)
def test_codes_without_a_type_are_refused(tmp_path: Path, format: Format, message: str) -> None:
    refused(
        exporting.pack(tmp_path / "packed", tiny.llama, {"*": format}),
        f"{message}.*more layers: .*--preset portable",
    )


def test_rotated_and_odd_widths_are_refused(tmp_path: Path, compress: Callable[..., Any]) -> None:
    model, tokenizer = tiny.llama()
    rotated = packed.save(compress(model, Int(bits=4, group=32)), tmp_path / "rotated", tokenizer)
    refused(rotated, r"no GGUF type holds Int\(bits=4, group=32\), rotated; the nearest is Q4_0")
    refused(
        exporting.pack(tmp_path / "odd", tiny.odd, {"*": Int(bits=4)}),
        "210 inputs are no multiple of 32",
    )


def test_computations_that_a_file_cannot_say_are_refused(tmp_path: Path) -> None:
    refused(
        exporting.pack(tmp_path / "w", tiny.gemma3, {"*": Int(bits=4)}),
        r"layer_types .* gemma3 files have fixed",
    )

    def scaled() -> tuple[Any, Any]:
        model, tokenizer = gemma3()
        model.config.query_pre_attn_scalar = 24
        return model, tokenizer

    refused(
        exporting.pack(tmp_path / "s", scaled, {"*": Int(bits=4)}),
        "query_pre_attn_scalar 24, but files imply 256",
    )


def test_unknown_cutting_rule_is_refused(tmp_path: Path) -> None:
    def shouting() -> tuple[Any, Any]:
        from tokenizers import pre_tokenizers

        model, tokenizer = tiny.llama()
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Punctuation(), backend.pre_tokenizer]
        )
        return model, tokenizer

    refused(
        exporting.pack(tmp_path / "p", shouting, {"*": Int(bits=4, group=32)}),
        "cuts text by a rule .*--to hf keeps",
    )


def wide() -> tuple[Any, Any]:
    """A llama of widths that TQ2_0 divides."""
    shape = {**SHAPE, "hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.06}
    return tiny.make(
        LlamaForCausalLM, LlamaConfig(tie_word_embeddings=True, **shape), 0
    ), tiny.tokenizer()


@pytest.mark.parametrize(
    ("make", "plan", "kind"),
    [
        (tiny.llama, {"*": Int(bits=4, group=32)}, "Q4_0"),
        (tiny.llama, {"*": Int(bits=4, group=32, symmetric=False, portable=True)}, "Q4_1"),
        (qwen2, {"*": Int(bits=8)}, "Q8_0"),
        (qwen3, {"*": Int(bits=3, group=32)}, "Q4_0"),
        (llama3(16), {"*": Int(bits=4, group=32)}, "Q4_0"),
        (LINEAR, {"*": Int(bits=4, group=32)}, "Q4_0"),
        (gemma2, {"*": Int(bits=4, group=32)}, "Q4_0"),
        (gemma3, {"*": Int(bits=4, group=32)}, "Q4_0"),
        (wide, {"*": Ternary()}, "TQ2_0"),
        (wide, {"*": Int(bits=2, group=256)}, "TQ2_0"),
    ],
    ids=lambda value: (
        getattr(value, "__name__", None) or (repr(value["*"]) if isinstance(value, dict) else value)
    ),
)
def test_llama_cpp_computes_the_same(
    tmp_path: Path, make: Callable[[], Any], plan: dict[str, Format], kind: str, ids: torch.Tensor
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    folder = exporting.pack(tmp_path / "packed", make, plan, tables=Int(bits=8))
    made = export_folder(folder, "gguf", tmp_path / "m.gguf")
    assert kind in made.types
    llama = llama_cpp.Llama(
        str(made.path),
        n_ctx=64,
        logits_all=True,
        verbose=False,
        n_threads=1,
        n_threads_batch=1,
        seed=0,
    )
    assert (
        llama.tokenize(TEXT.encode(), add_bos=False, special=True)
        == AutoTokenizer.from_pretrained(folder)(TEXT).input_ids
    )
    llama.eval(ids[0].tolist())
    theirs = torch.from_numpy(np.array(llama.scores[: ids.shape[1]])).double().log_softmax(-1)
    with decoded(model := packed.load(folder)):
        ours = model(ids[:1]).logits[0].double().log_softmax(-1)
    kl = (ours.exp() * (ours - theirs)).sum(-1).mean()
    print(f"KL of llama.cpp from the packed model: {kl:.2e}")
    # It rounds activations to 8 bits in blocks of 32 (and keys and values to fp16), which is all
    # that may differ.
    assert kl < 1e-3
    assert (ours.argmax(-1) == theirs.argmax(-1)).float().mean() > 0.9
