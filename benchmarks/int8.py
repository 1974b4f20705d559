"""Measures the error that the native engine makes by rounding activations to 8 bits.

The same packed model runs twice on the native engine: with activations in float32, and with
activations rounded to int8 for each token (keys and values are then in half precision). Both run
teacher-forced on windows of WikiText-2. The rows have the KL of the second from the first in nats,
and how often both have the same most likely token, with intervals over windows. The models are
SmolLM2 in 8-bit integers with rotated inputs, which of all packed models is closest to the original
weights, and SmolLM2 at 2 bits. With `--original` the first model is also compared with the original
in PyTorch; this KL also contains the rounding of the weights.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from common import Record, main, new_record, parser, progress
from folders import MODEL, quantized_folder

from featherweight import data
from featherweight.base import machine
from featherweight.evaluation import KL, evaluate
from featherweight.inference.native.reader import open_runtime
from featherweight.interchange import loading
from featherweight.interchange.tokenizer_check import load_tokenizer
from featherweight.quantization.layers import keep_decoded
from featherweight.workflows.evaluate_folder import TeacherForced

MOST_KL, LEAST_AGREEMENT, LENGTH = 0.003, 0.97, 1024


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("int8 activations against float32", arguments, num_seeds=1)
    windows = 2 if arguments.quick else 16
    folders = {path.name: path for path in arguments.folders}
    if not folders:
        folders = {
            "int8": quantized_folder("int8", "Int(bits=8)", 8, head=8),
            "trellis2": quantized_folder("trellis2", "Trellis(bits=2)", 2),
        }
    for name, folder in folders.items():
        tokens = data.windows(load_tokenizer(folder), data.text("wikitext2_test"), LENGTH, windows)
        with ExitStack() as stack:
            float_engine, int8_engine = (
                _engine(stack, folder, int8_activations) for int8_activations in (False, True)
            )
            row = add(record, name, "float32 activations", int8_engine, float_engine, tokens)
            record.check(f"{name}: KL of int8 activations, nats", row["kl"], at_most=MOST_KL)
            record.check(f"{name}: same most likely token", row["top1"], at_least=LEAST_AGREEMENT)
            if arguments.original and name == next(iter(folders)):
                original, _ = loading.load(MODEL, dtype=torch.float32)
                with keep_decoded(original):
                    add(record, name, "original in PyTorch", int8_engine, original, tokens)
    return record


def add(
    record: Record, name: str, against: str, light: Any, original: Any, tokens: Any
) -> dict[str, Any]:
    """A row of KL and agreement."""
    quality = evaluate(light, [KL(original, tokens, "wikitext2_test")], progress(name)).quality
    row: dict[str, Any] = {"model": name, "against": against}
    for key in ("kl", "top1"):
        row |= {
            key: quality[key]["mean"],
            f"{key}_low": quality[key]["low"],
            f"{key}_high": quality[key]["high"],
        }
    return record.add(**row, windows=len(tokens), load=machine.load_average())


def _engine(stack: ExitStack, folder: Path, int8_activations: bool) -> TeacherForced:
    engine = stack.enter_context(
        closing(open_runtime(folder, int8_activations=int8_activations, threads=2))
    )
    return TeacherForced(engine, stack.enter_context(closing(engine.session(LENGTH))))


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.add_argument(
        "--folders",
        type=Path,
        nargs="*",
        default=[],
        help="packed folders; without, they are made first",
    )
    flags.add_argument(
        "--original", action="store_true", help="compare the first folder with the original as well"
    )
    main(run, flags)
