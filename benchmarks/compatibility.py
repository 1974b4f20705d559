"""Writes docs/compatibility.md: what works with which architecture, and with which client.

    python benchmarks/compatibility.py [--check]

For each architecture a tiny random model is quantized, loaded, run on both engines and exported; a
table says what worked, and the reasons of this library for what did not. The table of clients names
the tests that show each row; a row whose tests do not exist is an error. With --check nothing is
written, and the exit code is 1 when the file differs (tests/benchmarks/test_compatibility.py checks
the same).
"""

from __future__ import annotations

import argparse
import ast
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
sys.path[:0] = [str(ROOT / "tests")]

import other_families  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402

import featherweight as fw  # noqa: E402
from featherweight.base.errors import FeatherweightError  # noqa: E402
from featherweight.interchange import exports, loading  # noqa: E402
from featherweight.interchange.source import Source  # noqa: E402
from featherweight.workflows.engines import open_engine  # noqa: E402
from featherweight.workflows.export_folder import export_folder  # noqa: E402
from featherweight.workflows.quantize_folder import quantize_folder  # noqa: E402

NAMES = {
    "llama": "Llama, SmolLM2",
    "qwen2": "Qwen2, Qwen2.5",
    "qwen3": "Qwen3",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3",
    "mistral": "Mistral (GGUF: without a window)",
    "phi3": "Phi-3 (GGUF: without a window)",
    "olmo2": "OLMo 2",
    "granite": "Granite",
    "stablelm": "StableLM",
    "gpt_neox": "GPT-NeoX, Pythia",
    "falcon": "Falcon",
    "opt": "OPT",
    "gpt_bigcode": "GPT-BigCode, StarCoder",
    "mamba": "Mamba",
    "falcon_mamba": "Falcon Mamba",
    "mamba2": "Mamba 2, Codestral Mamba",
    "falcon_h1": "Falcon H1 (Mamba 2 and attention)",
    "lfm2": "LFM2 (convolutions and attention)",
    "mixtral": "Mixtral (mixture of experts)",
}
# The families with a record here; `other_families` has the settings of the others.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    **{name: {**other_families.GROUPED, "head_dim": 16} for name in ("llama", "qwen2", "qwen3")},
    # GGUF holds no window of these models.
    "mistral": {**other_families.GROUPED, "head_dim": 16, "sliding_window": None},
    "granite": {
        **other_families.GROUPED,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
    },
    "olmo2": other_families.GROUPED,
    "phi3": {**other_families.GROUPED, "tie_word_embeddings": True},
    **other_families.SETTINGS,
    # The scale of attention scores that files of this size imply, so that GGUF holds them.
    "gemma2": {**other_families.GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16},
    "gemma3_text": {**other_families.GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16},
    "mixtral": {**other_families.GROUPED, "num_local_experts": 4},
}
# 8 bits to nearest in the codes that exports take, without calibration.
RECIPE = {
    "bits": 8,
    "preset": "portable",
    "rounding": "Nearest()",
    "curvature": None,
    "calibration": None,
}
COLUMNS = (
    "quantize",
    "calibrated",
    "PyTorch engine",
    "native engine",
    *(f"export {name}" for name in exports.summaries()),
)
IDS = torch.arange(3, 35)
# Relative to the largest logit.
CLOSE, SAME = 0.1, 1e-3

# Client or tool -> (what works, the tests that show it).
CLIENTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "`openai` (Python)",
        "models, chat, streams, stop strings, logprobs, JSON schema, completions, errors, keys",
        (
            "tests/serving/test_client.py::test_models",
            "tests/serving/test_client.py::test_chat",
            "tests/serving/test_client.py::test_chat_in_a_stream_is_the_same_text",
            "tests/serving/test_client.py::test_stop_strings_and_the_end_of_text",
            "tests/serving/test_client.py::test_chat_logprobs",
            "tests/serving/test_client.py::test_answers_after_a_schema",
            "tests/serving/test_client.py::test_completions",
            "tests/serving/test_client.py::test_errors_arrive_as_the_clients_own",
            "tests/serving/test_client.py::test_api_key",
        ),
    ),
    (
        "`openai`, tools",
        "`tools`, `tool_choice`, one call or several, arguments after their schema, streams, "
        "results as turns; a template without tools is refused by name",
        (
            "tests/serving/test_tools.py::test_answers_with_and_without_calls",
            "tests/serving/test_tools.py::test_calls_that_are_required_follow_the_schema",
            "tests/serving/test_tools.py::test_calls_and_their_results_are_turns",
            "tests/serving/test_tools.py::test_tools_and_a_schema_together",
            "tests/serving/test_tools.py::test_a_template_without_tools",
        ),
    ),
    (
        "`openai`, `/v1/responses`",
        "text, conversations with our own items, events, JSON schema",
        (
            "tests/serving/test_responses.py::test_text_in_and_out",
            "tests/serving/test_responses.py::test_a_conversation_with_our_own_items",
            "tests/serving/test_responses.py::test_events",
            "tests/serving/test_responses.py::test_text_after_a_schema",
        ),
    ),
    (
        "lm-evaluation-harness",
        "`local-completions` (batches, log-likelihoods through `echo`), `local-chat-completions`, "
        "`hf` on a packed folder",
        (
            "benchmarks/harness.py::judge",
            "tests/workflows/test_families.py::test_the_same_logits_after_loading",
        ),
    ),
    (
        "any HTTP client",
        "any body is answered or refused by name; limits; disconnects; 32 clients at once",
        (
            "tests/serving/test_any_body.py::test_any_object_is_read_or_refused",
            "tests/serving/test_bad_input.py::test_completions_that_cannot_work",
            "tests/serving/test_bad_input.py::test_clients_that_vanish",
            "tests/serving/test_load.py::test_32_clients",
        ),
    ),
    (
        "a browser (Chromium)",
        "the chat page: conversation, stop, two models side by side, keys",
        (
            "tests/serving/test_page.py::test_a_conversation",
            "tests/serving/test_page.py::test_stop",
            "tests/serving/test_page.py::test_compare_side_by_side",
            "tests/serving/test_page.py::test_errors_and_keys_are_told",
        ),
    ),
    (
        "transformers",
        "loads packed folders after `import featherweight.interchange.hf`, and `hf` exports",
        (
            "tests/workflows/test_families.py::test_the_same_logits_after_loading",
            "tests/interchange/test_checkpoint.py::test_tensors_are_those_of_transformers",
        ),
    ),
    (
        "compressed-tensors (vLLM's reader)",
        "reads `compressed-tensors` exports",
        ("tests/interchange/exports/test_compressed_tensors.py",),
    ),
    (
        "llama.cpp",
        "runs `gguf` exports",
        ("tests/interchange/exports/test_gguf_in_llama_cpp.py",),
    ),
)


@dataclass(frozen=True)
class Refusal:
    """The reason of this library why something does not work."""

    reason: str


Outcome = Refusal | None


def try_architecture(name: str) -> dict[str, Outcome]:
    """Column -> None where it works, else the refusal. Any other error escapes."""
    with tempfile.TemporaryDirectory(prefix="featherweight-compatibility-") as work:
        folder = Path(work)
        model = other_families.build(name, SETTINGS[name])
        tokenizer = tiny.qwen_tokenizer() if name == "qwen2" else tiny.tokenizer()
        source = tiny.save(model, tokenizer, folder / "source")
        light, expected = folder / "light", _logits(model)
        outcomes = {
            "quantize": _attempt(
                lambda: quantize_folder(str(source), light, RECIPE, evaluate=False), folder
            )
        }
        if outcomes["quantize"] is not None:
            return outcomes | dict.fromkeys(COLUMNS[1:], outcomes["quantize"])
        light_logits = _logits(loading.load(light)[0])
        _check(light_logits, expected, CLOSE, f"{name}: the quantized model")
        outcomes["calibrated"] = _attempt(lambda: _quantize_with_curvature(model), folder)
        for engine, column in (("reference", "PyTorch engine"), ("native", "native engine")):
            outcomes[column] = _attempt(lambda e=engine: _run(e, light, light_logits), folder)
        for target in exports.summaries():
            outcomes[f"export {target}"] = _attempt(
                lambda t=target: export_folder(light, t, folder / f"{t}.gguf"), folder
            )
        return outcomes


def _quantize_with_curvature(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 300, (4, 32), generator=generator)
    before = _logits(model)
    factors = fw.FisherA().collect(model, tokens)
    fw.quantize(model, fw.YAQA(), fw.Plan({"*": fw.Int(bits=8)}), factors)
    _check(_logits(model), before, CLOSE, "the calibrated model")


def _run(runtime: str, folder: Path, expected: torch.Tensor) -> None:
    engine, _ = open_engine(Source(folder.name, folder), runtime)
    try:
        logits = engine.forward(engine.session(64), IDS.numpy(), logits="all")
    finally:
        engine.close()
    tolerance = SAME if runtime == "reference" else CLOSE
    _check(torch.as_tensor(logits).float(), expected, tolerance, f"the {runtime} engine")


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=IDS[None]).logits[0]
    return logits


def _check(logits: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str) -> None:
    difference = float((logits - expected).abs().max() / expected.abs().max())
    if not difference <= tolerance:
        raise RuntimeError(f"{what} differs by {difference:.3g} of the largest logit")


def _attempt(work: Callable[[], object], folder: Path) -> Outcome:
    try:
        work()
    except FeatherweightError as error:
        return Refusal(str(error).replace(f"{folder}/", "").split("; try --runtime")[0])
    return None


def architecture_row(name: str, outcomes: Mapping[str, Outcome], reasons: list[str]) -> str:
    """One row of the table. New refusals are added to `reasons`; a cell shows their number."""
    cells = []
    for column in COLUMNS:
        outcome = outcomes[column]
        if outcome is None:
            cells.append("yes")
            continue
        reason = outcome.reason.replace(f"type {name!r}", "this type").replace(
            f" {name};", " this one;"
        )
        if reason not in reasons:
            reasons.append(reason)
        cells.append(f"no ({reasons.index(reason) + 1})")
    return f"| {NAMES[name]} | `{name}` | " + " | ".join(cells) + " |"


def check_clients() -> None:
    """Raise ValueError for a test in CLIENTS that does not exist."""
    for _, _, tests in CLIENTS:
        for test in tests:
            file, _, function = test.partition("::")
            names = {
                node.name
                for node in ast.walk(ast.parse((ROOT / file).read_text()))
                if isinstance(node, ast.FunctionDef)
            }
            if function and function not in names:
                raise ValueError(f"{test} does not exist")


def page() -> str:
    """The whole page."""
    check_clients()
    reasons: list[str] = []
    rows = [architecture_row(name, try_architecture(name), reasons) for name in NAMES]
    header = ["model", "`model_type`", *COLUMNS]
    clients = [
        f"| {client} | {works} | {', '.join(f'`{test}`' for test in tests)} |"
        for client, works, tests in CLIENTS
    ]
    return "\n".join(
        [
            "# What works with what",
            "",
            "This page is written by `python benchmarks/compatibility.py`; do not edit it. Every",
            '"yes" is the result of a test with a tiny random model: it is quantized to 8 bits and',
            "its logits are close to the original's, the engines give the logits of the quantized",
            "model, and the exports, read again, hold the same numbers. `calibrated` means that",
            "curvature was collected and used.",
            "",
            "## Architectures",
            "",
            "| " + " | ".join(header) + " |",
            "|" + "---|" * len(header),
            *rows,
            "",
            "Where the answer is no, this is what the command says:",
            "",
            *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)),
            "",
            "## Clients and tools",
            "",
            "| client or tool | what works | shown by |",
            "|---|---|---|",
            *clients,
            "",
        ]
    )


def main() -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    flags.add_argument("--check", action="store_true", help="only compare with the file")
    arguments = flags.parse_args()
    text = page()
    if arguments.check:
        sys.exit(0 if PAGE.read_text() == text else f"{PAGE} is not current; run without --check")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
