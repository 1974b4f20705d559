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
from transformers import AutoModelForCausalLM, AutoTokenizer

from featherweight.base.errors import UsageError
from featherweight.interchange.gguf import types
from featherweight.interchange.gguf.blocks import choose_type, encode
from featherweight.interchange.gguf.convert import convert
from featherweight.interchange.gguf.file import GGUFFile
from featherweight.interchange.packed import folder as packed
from featherweight.interchange.packed.model import PackedModel
from featherweight.quantization.formats import Int, Ternary, Trellis
from featherweight.quantization.formats.base import Format, Integers
from featherweight.quantization.layers import keep_decoded
from featherweight.workflows.export_folder import export_folder

TEXT = "In 1905 the fox:  12 <|im_end|>\n 2024"
FAMILIES = [
    *(tiny.llama, exporting.qwen2, exporting.qwen3, exporting.gemma2, exporting.gemma3),
    exporting.mistral,
]


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
    with keep_decoded(expected):
        for name, module in read.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                assert torch.equal(module.weight, expected.get_submodule(name).dense()), name
        # Subtracting the one that was added to Gemma's norms loses their last bits.
        close = {"atol": 1e-4} if "gemma" in expected.config.model_type else {"atol": 0, "rtol": 0}
        assert torch.allclose(read(ids).logits, expected(ids).logits, **close)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    assert tokenizer(TEXT).input_ids == AutoTokenizer.from_pretrained(folder)(TEXT).input_ids
    assert tokenizer.chat_template == tiny.CHAT


@pytest.mark.parametrize(
    "make",
    [
        tiny.llama,
        tiny.qwen3,
        exporting.qwen2,
        exporting.gemma2,
        exporting.spoken_gemma2,
        exporting.gemma3,
        exporting.deep_gemma3,
        exporting.llama3(8192),
        exporting.LINEAR,
        exporting.mistral,
        tiny.granite,
        exporting.olmo2,
        exporting.phi3,
        exporting.long_phi3,
    ],
)
def test_our_own_reader_undoes_it(
    tmp_path: Path, make: Callable[[], Any], ids: torch.Tensor
) -> None:
    """What is exported is read again: every number that the model computes with, the configuration
    and the tokenizer.
    """
    folder = exporting.pack(tmp_path / "packed", make, {"*": Int(bits=8, group=32)}, tables=None)
    made = export_folder(folder, "gguf", tmp_path / "m.gguf")
    (tmp_path / "back").mkdir()
    convert(made.path, tmp_path / "back")
    back, model = AutoModelForCausalLM.from_pretrained(tmp_path / "back"), PackedModel(folder)
    # Gemma computes with 1 + w, and that is what the file holds.
    offset = 1 if "gemma" in model.config.model_type else 0
    for name in model.names:
        added = offset if name.endswith("norm.weight") else 0
        assert torch.equal(back.state_dict()[name] + added, model.read(name) + added), name
    keys = {"architectures", "dtype", "transformers_version", "_name_or_path", "initializer_range"}
    keys |= {"pad_token_id", "bos_token_id", "eos_token_id"}
    ours, theirs = (
        {key: value for key, value in config.to_dict().items() if key not in keys}
        for config in (model.config, back.config)
    )
    if (
        model.config.model_type != back.config.model_type
    ):  # it is read as the family that computes alike
        ours |= {"model_type": back.config.model_type}
        ours = {key: value for key, value in ours.items() if key in theirs}
        theirs = {key: value for key, value in theirs.items() if key in ours}
    assert theirs == ours
    with keep_decoded(original := packed.load(folder)):
        assert torch.equal(back(ids).logits, original(ids).logits)
    read, expected = AutoTokenizer.from_pretrained(tmp_path / "back"), make()[1]
    for text in (TEXT, "  the\n\n\tfox\t\t a   b é🙂<start_of_turn>x"):
        assert read(text).input_ids == expected(text).input_ids


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
        (Int(bits=2, group=128), 256, "Q2_0"),
        (Int(bits=2, group=64), 576, "Q2_0"),
        (Int(bits=2, group=192, portable=True), 576, "Q2_0"),
        (Int(bits=2), 192, "Q2_0"),
        (Ternary(group=64), 576, "Q2_0"),
        (Ternary(), 320, "Q2_0"),
        (Ternary(group=256), 512, "TQ2_0"),
        (Ternary(group=32), 256, "Q4_0"),
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
    storage = types.by_name(kind)
    assert rows.shape == (32, columns // storage.block * storage.block_bytes)
    read = decode_q2_0(rows) if kind == "Q2_0" else gguf_dequantize(rows, kind)
    assert np.array_equal(read, weight.numpy())
    assert np.array_equal(types.decode(rows, storage), weight.numpy())
    if isinstance(matrix.zero, int):
        assert (
            len(np.unique((matrix.codes.to(torch.int16) - matrix.zero).numpy())) > 2
        )  # more than the easy codes


def gguf_dequantize(rows: np.ndarray, kind: str) -> np.ndarray:
    return gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind])


def decode_q2_0(rows: np.ndarray) -> np.ndarray:
    """llama.cpp's definition, weight by weight: d, then 16 bytes of four codes from the low bits
    up.
    """
    numbers = []
    for block in rows.reshape(-1, 18):
        d = float(np.frombuffer(block[:2].tobytes(), "<f2")[0])
        codes = [int(block[2 + j // 4]) >> 2 * (j % 4) & 3 for j in range(64)]
        numbers += [(code - 1) * d for code in codes]
    return np.array(numbers, np.float32).reshape(len(rows), -1)


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
            r"layers.0.self_attn.q_proj.weight: no GGUF type holds Trellis\(bits=2\); "
            r".* Int\(bits=4",
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
        model, tokenizer = exporting.gemma3()
        model.config.query_pre_attn_scalar = 24
        return model, tokenizer

    refused(
        exporting.pack(tmp_path / "s", scaled, {"*": Int(bits=4)}),
        "query_pre_attn_scalar 24, but files imply 256",
    )


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (exporting.gemma2, {"final_logit_softcapping": None}, "final_logit_softcapping.*with 30;"),
        (exporting.gemma2, {"tie_word_embeddings": False}, "no name for lm_head.weight in gemma2"),
        (exporting.gemma2, {"use_bidirectional_attention": True}, "attends to later tokens"),
        (exporting.gemma3, {"attn_logit_softcapping": 50.0}, "softcapping 50, but gemma3 files"),
        (exporting.gemma3, {"hidden_activation": "silu"}, "activation silu, but gemma3 files"),
        (
            exporting.gemma3,
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "layers with a window is scaled",
        ),
        (exporting.olmo2, {"head_dim": 32}, "queries are 128 wide, but olmo2 files imply"),
        (exporting.phi3, {"sliding_window": 64}, "see 64 of 512 positions, but phi3 files"),
        (exporting.mistral, {"sliding_window": 64}, "see 64 of 512 positions, but llama files"),
    ],
)
def test_settings_that_runtimes_fix_in_code_are_refused(
    tmp_path: Path, make: Callable[..., Any], settings: dict[str, Any], message: str
) -> None:
    plan = {"*": Int(bits=4, group=32)}
    if "tie_word_embeddings" in settings:
        plan = {"lm_head": Int(bits=4, group=32), **plan}
    refused(exporting.pack(tmp_path / "p", lambda: make(**settings), plan), message)


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


def test_two_bits_on_rows_that_no_multiple_of_256_divides(tmp_path: Path) -> None:
    folder = exporting.pack(
        tmp_path / "packed", tiny.llama, {"*": Int(bits=2, group=64, portable=True)}
    )
    made = export_folder(folder, "gguf", tmp_path / "m.gguf")
    assert made.types == {"Q2_0": 14, "F32": 6}
    assert "14 matrices of Int(bits=2, group=64, portable=True) in Q2_0, 2.25 bits a weight" in (
        made.notes
    )
    assert "Q2_0 is read by llama.cpp from the middle of 2026 on" in made.notes
    file = GGUFFile(made.path)
    assert file.values["general.file_type"] == 41
    assert {info.storage.number for info in file.tensors.values()} == {0, 42}
