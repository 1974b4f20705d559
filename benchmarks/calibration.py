"""Compares calibration texts of different diversity and amount by the KL at low bits on held-out
text of several kinds.

    python benchmarks/calibration.py [--quick] [--preset fast|balanced] [--bits 2] [--json FILE]

Each arm calibrates on one amount of one mix and quantizes SmolLM2-135M-Instruct in memory. Signs,
rounding and damping are equal for all arms. The KL from the original is measured on five kinds of
held-out text: encyclopedia (WikiText-2 test), novels, school mathematics, programs, and chat
(MT-Bench questions with the original's own answers). `in_domain` calibrates on WikiText-2
validation. It shows how much is gained when the kind of the test text is known in advance, which is
not the case for users. `generated` is text that the model wrote itself; `shipped+generated` is half
of each.

The preset determines the method: `fast` is LDLQ with Gram matrices, `balanced` is YAQA with both
sides of the Fisher information. Mixes are compared by the geometric mean over the kinds, so that a
kind with large numbers does not dominate. Differences from the shipped mix are paired by window. An
arm takes a few minutes on two cores; `--quick` runs three mixes on two kinds.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import Record, main, new_record, parser, progress, with_stopwatch
from originals import original_answers
from torch import Tensor, nn

import featherweight as fw
from featherweight.base.statistics import paired_difference
from featherweight.data import packing
from featherweight.data.corpora import Dialogue
from featherweight.data.tokens import encode_documents
from featherweight.models import structure
from featherweight.models.answers import Answers

TEXTS = Path(__file__).parent / "data"
LENGTH = 256
AMOUNTS = (64, 160, 256)
KINDS = ("wikitext2_test", "novels_valid", "gsm8k_test", "humaneval", "chat")


@dataclass(frozen=True)
class Arm:
    """One calibration: a mix of `data.MIXES`, or one of in_domain, generated, shipped+generated."""

    mix: str
    count: int


def arms(quick: bool) -> list[Arm]:
    """Every mix at the middle amount; the shipped mix also at the other amounts, and the mix of
    novels alone also at the largest.
    """
    if quick:
        return [Arm(mix, AMOUNTS[0]) for mix in ("shipped", "novels", "in_domain")]
    middle = [
        Arm(mix, AMOUNTS[1])
        for mix in (*fw.data.MIXES, "generated", "shipped+generated", "in_domain")
    ]
    return [
        *middle,
        Arm("shipped", AMOUNTS[0]),
        Arm("shipped", AMOUNTS[2]),
        Arm("novels", AMOUNTS[2]),
    ]


def in_domain_text() -> str:
    """WikiText-2 validation. It is not part of the package, because no shipped mix may use it."""
    return gzip.decompress((TEXTS / "wikitext2_valid.txt.gz").read_bytes()).decode("utf-8")


def chat_windows(tokenizer: Any, length: int, count: int) -> Tensor:
    """Windows (count, length + 1) of rendered conversations; each window starts with a new one."""
    lines = (
        gzip.decompress((TEXTS / "mt_bench_replies.jsonl.gz").read_bytes())
        .decode("utf-8")
        .split("\n")
    )
    dialogues = [Dialogue(**json.loads(line)) for line in lines if line]
    sequences = packing.pack(encode_documents(tokenizer, dialogues), length + 1)
    return torch.tensor(sequences[:count])


def held_out(tokenizer: Any, quick: bool) -> dict[str, Tensor]:
    """Kind -> windows (count, length + 1)."""
    length, count = (256, 4) if quick else (512, 12)
    kinds = ("wikitext2_test", "chat") if quick else KINDS
    return {
        kind: chat_windows(tokenizer, length, count)
        if kind == "chat"
        else fw.data.windows(tokenizer, fw.data.text(kind), length, count)
        for kind in kinds
    }


class Texts:
    """Creates the calibration set of an arm. Text of the model is sampled once for all amounts."""

    def __init__(self, model: nn.Module, tokenizer: Any, seed: int) -> None:
        self.model, self.tokenizer, self.seed = model, tokenizer, seed
        self._model_text: fw.data.Calibration | None = None

    def model_text(self) -> fw.data.Calibration:
        if self._model_text is None:
            self._model_text = fw.data.calibration_from_model(
                self.model,
                self.tokenizer,
                AMOUNTS[1],
                LENGTH,
                self.seed,
                batch=40,
                listener=progress("generated"),
            )
        return self._model_text

    def __call__(self, arm: Arm) -> fw.data.Calibration:
        if arm.mix == "in_domain":
            return fw.data.calibration_from_text(
                self.tokenizer, in_domain_text(), arm.count, LENGTH, self.seed
            )
        if arm.mix == "generated":
            return fw.data.blend([(self.model_text(), 1.0)], arm.count)
        if arm.mix == "shipped+generated":
            shipped_text = fw.data.calibration(self.tokenizer, arm.count, LENGTH, self.seed)
            return fw.data.blend([(shipped_text, 0.5), (self.model_text(), 0.5)], arm.count)
        return fw.data.calibration(
            self.tokenizer, arm.count, LENGTH, self.seed, fw.data.MIXES[arm.mix]
        )


def light(
    model: nn.Module, tokens: Tensor, preset: str, bits: int, seed: int, name: str
) -> nn.Module:
    """A quantized copy of `model`. The tables stay in floating point, so that the KL comes from the
    layers only.
    """
    curvature, rounding = (
        (fw.Gram(), fw.LDLQ()) if preset == "fast" else (fw.FisherA(seed=seed), fw.YAQA())
    )
    factors = curvature.collect(model, tokens, progress(name))
    light_model = copy.deepcopy(model)
    plan = fw.Plan({structure.embedding(model): None, "*": fw.Trellis(bits=bits)})
    fw.quantize(light_model, rounding, plan, factors, fw.Hadamard(seed=seed), progress(name))
    return light_model


def measure(
    teachers: Mapping[str, Answers], small: nn.Module, windows: Mapping[str, Tensor], name: str
) -> dict[str, list[float]]:
    """Kind -> KL of each window, in nats a token."""
    metrics = [fw.KL(teachers[kind], tokens, kind) for kind, tokens in windows.items()]
    results = fw.evaluate(small, metrics, progress(name))
    return {
        kind: text.scores.kl.mean(1).tolist()
        for kind, text in zip(windows, results.texts, strict=True)
    }


def run(arguments: argparse.Namespace) -> Record:
    model, tokenizer = fw.load(arguments.model)
    model = model.float().eval()
    title = f"calibration text: KL at {arguments.bits} bits, {arguments.preset}"
    record = new_record(title, arguments)
    windows = held_out(tokenizer, arguments.quick)
    record.facts |= {
        "model": arguments.model,
        "bits": arguments.bits,
        "preset": arguments.preset,
        "calibration_length": LENGTH,
        "windows": {kind: list(tokens.shape) for kind, tokens in windows.items()},
        "mixes": {name: dict(mix) for name, mix in fw.data.MIXES.items()},
    }
    with TemporaryDirectory() as folder:
        # The logits of the original are computed once and stored in float16 for all arms. They take
        # 3 GB, and the rounding causes an error of the KL near 1e-6.
        teachers = {
            kind: original_answers(model, tokenizer, tokens, Path(folder) / kind, arguments.model)
            for kind, tokens in windows.items()
        }
        for seed in arguments.seeds:
            run_seed(arguments, record, model, tokenizer, teachers, windows, seed)
    compare(record)
    return record


def run_seed(
    arguments: argparse.Namespace,
    record: Record,
    model: nn.Module,
    tokenizer: Any,
    teachers: Mapping[str, Answers],
    windows: Mapping[str, Tensor],
    seed: int,
) -> None:
    """Add one row for each arm. `seed` determines the text, the signs and the sampled labels."""
    texts = Texts(model, tokenizer, seed)
    for arm, seconds in with_stopwatch(selected_arms(arguments)):
        text = texts(arm)
        small = light(model, text.tokens, arguments.preset, arguments.bits, seed, arm.mix)
        per_window = measure(teachers, small, windows, arm.mix)
        means = {kind: sum(values) / len(values) for kind, values in per_window.items()}
        record.add(
            mix=arm.mix,
            sequences=arm.count,
            tokens=text.tokens.numel(),
            seed=seed,
            **means,
            geometric_mean=math.exp(sum(map(math.log, means.values())) / len(means)),
            seconds=round(seconds(), 1),
            kl_windows=per_window,
            fingerprint=text.fingerprint,
        )


def selected_arms(arguments: argparse.Namespace) -> Iterator[Arm]:
    for arm in arms(arguments.quick):
        if arguments.mixes is None or arm.mix in arguments.mixes:
            yield arm


def compare(record: Record) -> None:
    """Add to each row its paired difference from the shipped mix at the same amount and seed, and
    check the claims for which the shipped mix is the default.
    """
    shipped_rows = {
        (row["sequences"], row["seed"]): row for row in record.rows if row["mix"] == "shipped"
    }
    for row in record.rows:
        base = shipped_rows.get((row["sequences"], row["seed"]))
        if base is None or base is row:
            continue
        row["paired"] = {
            kind: paired_difference(row["kl_windows"][kind], base["kl_windows"][kind]).as_dict()
            for kind in row["kl_windows"]
        }
        if row["mix"] == "novels":
            wiki = base["wikitext2_test"] / row["wikitext2_test"]
            record.check(
                f"shipped / novels on WikiText-2, {row['sequences']} sequences", wiki, at_most=0.9
            )
        if row["mix"] in fw.data.MIXES:
            ratio = base["geometric_mean"] / row["geometric_mean"]
            claim = f"shipped / {row['mix']}, mean over kinds, {row['sequences']} sequences"
            record.check(claim, ratio, at_most=1.03)


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.set_defaults(preset="fast")
    flags.add_argument(
        "--model", default="SmolLM2-135M-Instruct", help="alias, folder, GGUF file or hub id"
    )
    flags.add_argument("--bits", type=int, default=2)
    flags.add_argument("--mixes", nargs="+", metavar="MIX", help="only these arms")
    main(run, flags)
