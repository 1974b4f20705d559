"""The preset `smollm2` of `distill.py`: half of a model's blocks, healed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import OtherProcesses, Record, new_record
from folders import MODEL
from torch import Tensor, nn

import featherweight as fw
from featherweight import data
from featherweight.base.run_folder import RunFolder
from featherweight.base.statistics import paired_difference
from featherweight.distillation import AnswerBatches, Recipe, keep_blocks, spread
from featherweight.distillation.recipe import train
from featherweight.evaluation import KL, Perplexity, evaluate
from featherweight.models.answers import Answers, TopK, write_answers
from featherweight.training import ShuffledBatches, history
from featherweight.training.losses import CrossEntropy, TokenLoss, TopKKL

RECOVERED = 2 / 3
MIX = {
    "novels": 0.26,
    "wikipedia": 0.2,
    "math": 0.14,
    "code": 0.12,
    "competition": 0.08,
    "plays": 0.06,
    "code_chat": 0.05,
    "math_chat": 0.04,
    "instructions_chat": 0.03,
    "tasks_chat": 0.02,
}
HEALING = Recipe(steps=280, batch=4, accumulate=2, lr=6e-4, warmup=20)


@dataclass(frozen=True)
class Healing:
    """windows of `length` tokens that are learned from, and judged. steps of `batch` x `accumulate`
    windows. judge_length: of the held-out text.
    """

    windows: int = 1024
    length: int = 256
    judged: int = 16
    judge_length: int = 512
    recipe: Recipe = HEALING


QUICK_HEALING = Healing(
    windows=16, length=64, judged=2, judge_length=64, recipe=Recipe(steps=2, batch=4, lr=1e-3)
)


def run_healing(arguments: argparse.Namespace) -> Record:
    healing = QUICK_HEALING if arguments.quick else Healing()
    record = new_record(
        "SmolLM2 with every second block, healed",
        arguments,
        num_seeds=1,
        key=("arm",),
        settings={**vars(healing), "recipe": repr(healing.recipe), "mix": MIX},
    )
    record.resume()
    with work_folder(arguments) as folder:
        bench = HealingBench(healing, folder, arguments.seeds[0])
        for arm in ("before", "distilled", "cross_entropy"):
            if record.find(arm=arm) is None:
                others = OtherProcesses()
                row = bench.row(arm)
                record.add(arm=arm, **row, busy_cores=others.busy_cores())
    check_healing(record)
    return record


class InBfloat16(nn.Module):
    """A model whose products are rounded to bfloat16, for answers about much text."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, use_cache: bool = False) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(tokens, use_cache=use_cache)


class HealingBench:
    """The original, its answers and the texts of the preset `smollm2`."""

    def __init__(self, healing: Healing, folder: Path, seed: int) -> None:
        self.healing, self.folder = healing, folder
        self.recipe = replace(healing.recipe, seed=seed)
        self.original, self.tokenizer = fw.load(MODEL)
        count, judged = healing.windows, healing.judged
        tokens = data.calibration(
            self.tokenizer, count + judged, healing.length + 1, seed, MIX
        ).tokens
        self.tokens = tokens[:count]
        self.judged = {
            "wikitext2": data.windows(
                self.tokenizer, data.text("wikitext2_test"), healing.judge_length, judged
            ),
            "held_out": tokens[count:],
        }

    def row(self, arm: str) -> dict[str, Any]:
        """One student, trained and judged; `before`: not trained."""
        student = keep_blocks(self.original, spread(30, 2)).float()
        seconds, curve = 0.0, []
        if arm != "before":
            answers = self._answers()
            epochs = self.recipe.epochs(len(self.tokens), "windows")
            batches: Any = AnswerBatches(answers, self.recipe.batch, epochs, self.recipe.seed)
            loss = TokenLoss(TopKKL())
            if arm == "cross_entropy":
                batches = ShuffledBatches(self.tokens, self.recipe.batch, epochs, self.recipe.seed)
                loss = TokenLoss(CrossEntropy())
            curve = list(self._train(arm, student, batches, loss))
            seconds = sum(step["seconds"] for step in curve)
        row: dict[str, Any] = {"train_seconds": seconds, "tokens": self._num_tokens(arm)}
        for name, windows in self.judged.items():
            metrics = [Perplexity(windows), KL(self.original, windows)]
            result = evaluate(student.eval(), metrics)
            quality = result.quality
            row[f"kl_{name}"] = quality["kl"]["mean"]
            row[f"top1_{name}"] = quality["top1"]["mean"]
            row[f"perplexity_{name}"] = quality["light"]["perplexity"]["mean"]
            row[f"kl_windows_{name}"] = quality["kl_windows"]
        return row | {"curve": curve}

    def _num_tokens(self, arm: str) -> int:
        return (
            0 if arm == "before" else self.recipe.steps * self.recipe.examples * self.healing.length
        )

    def _answers(self) -> Answers:
        start = time.monotonic()
        answers = write_answers(
            InBfloat16(self.original),
            self.tokens,
            self.folder / "answers",
            TopK(64),
            tokenizer=self.tokenizer,
            model_id=MODEL,
        )
        print(f"  answers {time.monotonic() - start:.0f} s", flush=True)
        return answers

    def _train(
        self, arm: str, student: nn.Module, batches: Any, loss: Any
    ) -> Iterator[dict[str, float]]:
        """Every step's loss and seconds, with those of an earlier process."""
        with RunFolder(self.folder / arm, {"recipe": repr(self.recipe)}) as run:
            for step in train(student, batches, loss, self.recipe, run):
                if step.number % 10 == 0:
                    print(
                        f"  {arm} {step.number}: {step.loss:.3f}, "
                        f"{step.units_per_second:.0f} tokens/s",
                        flush=True,
                    )
            rows = history(run.folder, "distill")
        examples = self.recipe.examples * self.healing.length
        for row in rows:
            yield {
                "step": row["step"],
                "loss": row["loss"],
                "seconds": examples / row["units_per_second"],
            }


def check_healing(record: Record) -> None:
    before, distilled, plain = (
        record.find(arm=arm) for arm in ("before", "distilled", "cross_entropy")
    )
    assert before and distilled and plain
    for name in ("wikitext2", "held_out"):
        share = 1 - distilled[f"kl_{name}"] / before[f"kl_{name}"]
        record.check(f"healing: recovered of the KL, {name}", share, at_least=RECOVERED)
        windows = f"kl_windows_{name}"
        gain = paired_difference(plain[windows], distilled[windows])
        record.facts[f"gain_{name}"] = gain.as_dict()
        claim = f"healing: KL of cross-entropy minus distilled, low end, {name}"
        record.check(claim, gain.low, at_least=0.0)
