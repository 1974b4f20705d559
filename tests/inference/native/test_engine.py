"""The native engine computes the logits of the PyTorch model, and the same bits on every
instruction set and number of threads.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

import featherweight as fw
from featherweight.base.errors import BadInput, Unsupported, UsageError
from featherweight.inference.native.engine import NativeEngine
from featherweight.inference.native.reader import open_runtime
from featherweight.ops import library

pytestmark = pytest.mark.skipif(library.library() is None, reason="no native library")
FAMILIES = (
    *(tiny.llama, tiny.qwen2, tiny.qwen3, tiny.gemma2, tiny.gemma3, tiny.odd),
    *(tiny.mistral, tiny.granite, tiny.olmo2, tiny.phi3),
)
FORMATS = (
    *(fw.Int(bits=bits) for bits in range(2, 9)),
    *(fw.Int(bits=bits, group=32) for bits in (2, 3, 4, 8)),
    fw.Int(bits=4, group=64, symmetric=False),
    fw.Ternary(),
    fw.Ternary(group=32),
    *(fw.Trellis(bits=bits) for bits in (1, 2, 3, 4)),
    *(fw.Trellis(bits=bits, L=14) for bits in (1, 2, 3, 4)),
)
TOKENS = torch.randint(3, 300, (40,), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def packed_folder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[Path, np.ndarray]]:
    """(family, body, table, transform) -> a packed folder, and the PyTorch logits for TOKENS."""

    @cache
    def make(family: Any, body: Any, table: Any, transform: Any) -> tuple[Path, np.ndarray]:
        model, tokenizer = family()
        plan = fw.Plan({"*embed*": table, "lm_head": table, "*": body})
        fw.quantize(model, fw.Nearest(), plan, None, transform=transform)
        folder = tmp_path_factory.mktemp("packed")
        fw.save(model, folder / "model", tokenizer)
        with torch.no_grad():
            return folder / "model", model(TOKENS[None]).logits[0].numpy()

    return make


def _run(engine: NativeEngine, tokens: Any = TOKENS) -> np.ndarray:
    session = engine.session(64)
    return engine.forward(session, tokens.tolist(), "all")


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    p, q = (torch.from_numpy(x).double().log_softmax(-1) for x in (p, q))
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transform", [None, fw.Hadamard(), fw.Hadamard(output="block64")])
def test_step_equals_reference_logits(packed_folder: Any, family: Any, transform: Any) -> None:
    folder, reference = packed_folder(family, fw.Trellis(bits=3), fw.Int(bits=8), transform)
    engine = open_runtime(folder, int8_activations=False)
    np.testing.assert_allclose(_run(engine), reference, rtol=2e-4, atol=2e-4)
    int8_logits = _run(open_runtime(folder))
    assert _kl(reference, int8_logits) < 0.003


@pytest.mark.parametrize("body", FORMATS, ids=repr)
def test_every_format_equals_reference_logits(packed_folder: Any, body: Any) -> None:
    folder, reference = packed_folder(tiny.qwen2, body, fw.Int(bits=4, group=32), fw.Hadamard())
    np.testing.assert_allclose(
        _run(open_runtime(folder, int8_activations=False)), reference, rtol=2e-4, atol=2e-4
    )
    assert _kl(reference, _run(open_runtime(folder))) < 0.004


@pytest.mark.parametrize("family", [tiny.llama, tiny.qwen2])
@pytest.mark.parametrize("transform", [None, fw.Hadamard()])
def test_heads_of_trellis_codes_take_int8_activations(
    packed_folder: Any, family: Any, transform: Any
) -> None:
    folder, reference = packed_folder(family, fw.Int(bits=8), fw.Trellis(bits=3), transform)
    assert _kl(reference, _run(open_runtime(folder))) < 1e-3


@pytest.mark.parametrize(
    "body", [fw.Int(bits=4, group=4), fw.Int(bits=3, group=23, symmetric=False)], ids=repr
)
def test_groups_that_padding_cuts(packed_folder: Any, body: Any) -> None:
    """Rows of 92 are stored 96 wide: the last group lies partly, or wholly, in padding."""
    folder, reference = packed_folder(tiny.gemma3, fw.Int(bits=8), body, None)
    np.testing.assert_allclose(
        _run(open_runtime(folder, int8_activations=False)), reference, rtol=2e-4, atol=2e-4
    )


@pytest.mark.parametrize("body", FORMATS, ids=repr)
def test_threads_and_isas_change_nothing(packed_folder: Any, body: Any) -> None:
    folder, _ = packed_folder(tiny.qwen2, body, fw.Int(bits=4, group=32), fw.Hadamard())
    reference = _run(open_runtime(folder, isa="scalar", threads=1))
    for isa in library.available():
        for threads in (1, 2, 3):
            logits = _run(open_runtime(folder, isa=isa, threads=threads))
            np.testing.assert_array_equal(
                logits.view(np.uint32), reference.view(np.uint32), err_msg=f"{isa} {threads}"
            )


@pytest.mark.parametrize("family", [tiny.mistral, tiny.granite, tiny.olmo2, tiny.phi3])
@pytest.mark.parametrize("body", [fw.Trellis(bits=3), fw.Int(bits=4)], ids=repr)
def test_threads_and_isas_change_nothing_for_any_family(
    packed_folder: Any, family: Any, body: Any
) -> None:
    transform = fw.Hadamard(output="full")
    folder, _ = packed_folder(family, body, fw.Int(bits=8), transform)
    reference = _run(open_runtime(folder, isa="scalar", threads=1))
    for isa in library.available():
        logits = _run(open_runtime(folder, isa=isa, threads=3))
        np.testing.assert_array_equal(logits.view(np.uint32), reference.view(np.uint32), isa)


@pytest.mark.parametrize("threads", [2, 3, 5, 16])
def test_single_tokens_with_more_threads_than_there_is_work(
    packed_folder: Any, threads: int
) -> None:
    """Some threads then have no column of a block of trellis codes, and their part of the sum must
    not be added.
    """
    folder, _ = packed_folder(
        tiny.qwen2, fw.Trellis(bits=2), fw.Int(bits=4, group=32), fw.Hadamard()
    )
    engines = [open_runtime(folder, threads=count) for count in (1, threads)]
    sessions = [engine.session(64) for engine in engines]
    for token in TOKENS[:5].tolist():
        one_thread, many_threads = (
            engine.forward(session, [token])
            for engine, session in zip(engines, sessions, strict=True)
        )
        np.testing.assert_array_equal(many_threads.view(np.uint32), one_thread.view(np.uint32))


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_models_run_too(family: Any, tmp_path: Path) -> None:
    model, tokenizer = family()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        folder = tiny.save(model.to(dtype), tokenizer, tmp_path / str(dtype))
        # The folder is loaded again: casting a model to fewer bits and back would also round its
        # rotary frequencies.
        with torch.no_grad():
            reference = fw.load(folder)[0](TOKENS[None]).logits[0].numpy()
        np.testing.assert_allclose(
            _run(open_runtime(folder, int8_activations=False)), reference, rtol=2e-4, atol=2e-4
        )


@pytest.mark.parametrize(
    "family", [tiny.llama, tiny.gemma2, tiny.gemma3, tiny.mistral, tiny.olmo2, tiny.phi3]
)
def test_one_by_one_together_and_at_once_are_the_same_bits(packed_folder: Any, family: Any) -> None:
    folder, _ = packed_folder(family, fw.Trellis(bits=2), fw.Int(bits=8), fw.Hadamard())
    engine = open_runtime(folder, threads=2)
    tokens = TOKENS.tolist()
    reference = _run(engine).view(np.uint32)
    session = engine.session(64)
    logits = np.concatenate([engine.step([session], [token]) for token in tokens])
    np.testing.assert_array_equal(logits.view(np.uint32), reference)
    sessions = [engine.session(64) for _ in range(5)]
    for index, session in enumerate(sessions):
        engine.forward(session, tokens[: 3 + index], "none")
    for turn in range(6):
        logits = engine.step(sessions, [tokens[3 + index + turn] for index in range(5)]).view(
            np.uint32
        )
        for index in range(5):
            np.testing.assert_array_equal(logits[index], reference[3 + index + turn])


def test_rewound_and_restored_sessions_continue_with_the_same_bits(packed_folder: Any) -> None:
    folder, _ = packed_folder(tiny.llama, fw.Trellis(bits=2), fw.Int(bits=8), fw.Hadamard())
    engine = open_runtime(folder)
    tokens = TOKENS.tolist()
    reference = _run(engine)
    session = engine.session(64)
    engine.forward(session, tokens[:20] + tokens[:9], "none")
    session.rewind(20)
    copy = engine.session(48)
    copy.restore(session.state(), 20)
    for each_session in (session, copy):
        np.testing.assert_array_equal(
            engine.forward(each_session, tokens[20:], "all"), reference[20:]
        )
    with pytest.raises(BadInput, match="kept keys"):
        copy.restore({"keys": np.zeros(3)}, 20)


def test_wrong_calls_are_refused(packed_folder: Any) -> None:
    folder, _ = packed_folder(tiny.llama, fw.Trellis(bits=2), fw.Int(bits=8), fw.Hadamard())
    engine = open_runtime(folder)
    session = engine.session(8)
    for tokens, message in (
        ([], "no tokens"),
        ([300], "vocabulary of 300"),
        ([-1], "vocabulary"),
        ([5] * 9, "9 tokens"),
    ):
        with pytest.raises(UsageError, match=message):
            engine.forward(session, tokens)
    with pytest.raises(UsageError, match="600 tokens"):
        engine.session(600)
    with pytest.raises(UsageError, match="each once"):
        engine.step([session, session], [3, 4])
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.forward(session, [3])


def test_positions_of_other_rotations_are_refused(tmp_path: Path) -> None:
    """LongRoPE turns all positions of longer texts by other angles."""
    engine = open_runtime(tiny.save(*tiny.phi3(), tmp_path))
    assert engine.context == 64
    with pytest.raises(Unsupported, match="65 tokens: .* runs 64 of this model's 512 positions"):
        engine.session(65)
    with pytest.raises(UsageError, match="made for 1 to 64"):
        engine.session(513)


def test_a_file_that_shrinks_is_noticed(packed_folder: Any, tmp_path: Path) -> None:
    folder, _ = packed_folder(tiny.llama, fw.Trellis(bits=2), fw.Int(bits=8), fw.Hadamard())
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    engine = open_runtime(copy)
    session = engine.session(32)
    engine.forward(session, [3, 4])
    with open(copy / "model.safetensors", "r+b") as file:
        file.truncate(100)
    with pytest.raises(BadInput, match="changed while it was in use"):
        engine.forward(session, [5])


def test_other_families_are_left_to_pytorch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox"}')
    with pytest.raises(Unsupported, match="gpt_neox"):
        open_runtime(tmp_path)


def test_the_runtime_imports_no_torch(packed_folder: Any) -> None:
    folder, _ = packed_folder(tiny.llama, fw.Trellis(bits=2), fw.Int(bits=8), fw.Hadamard())
    code = (
        "import sys; from featherweight.inference.native.reader import open_runtime; "
        f"e = open_runtime({str(folder)!r}); e.forward(e.session(8), [3]); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
