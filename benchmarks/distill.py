"""Does a student learn from top-k answers as well as from whole distributions, and does
distillation heal a model that lost half of its blocks?

    python benchmarks/distill.py --preset cpu --json cpu.json
    python benchmarks/distill.py --preset smollm2 --json smollm2.json

`cpu`: a small Llama is trained on the shipped texts, then students of 1.3 M parameters learn from
it in the same data order: from its whole distributions, from top-k answers, and from the text
alone. Of the other tokens, top-k answers say nothing (`zero`), what mass they have together
(`tail`), or that mass and some of them, drawn by their probability (`draws`). Judged on documents
that nobody learned from: loss, KL from the teacher, calibration error (the gap between confidence
and accuracy of the most likely token, over 15 bins of confidence, weighted by their tokens).

`smollm2`: SmolLM2 with every second block removed learns from the answers of the whole model, or
from the text alone, for equal tokens. `recovered` is the share of the KL that is gone.

Students of one seed are trained one after the other; all figures are paired over windows. Every
finished row is kept in --json and is not measured again; training itself continues in the folder
beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import OtherProcesses, Record, main, new_record, parser, work_folder
from distill_healing import run_healing
from torch import Tensor, nn

from featherweight import data
from featherweight.base.run_folder import RunFolder
from featherweight.base.statistics import Interval, paired_difference
from featherweight.data.corpora import corpus
from featherweight.distillation import Recipe, distill
from featherweight.distillation.recipe import train
from featherweight.evaluation import KL, Perplexity, evaluate
from featherweight.evaluation.base import Scores
from featherweight.models.answers import Answers, Full, TopK, write_answers
from featherweight.models.scratch import scratch_model
from featherweight.training import ShuffledBatches, Step
from featherweight.training.losses import CrossEntropy, ForwardKL, TokenLoss

TAIL_GAP, ZERO_RATIO = 0.01, 2.0
BINS = 15
HELD_OUT = 20  # every so-manieth document is for judging
CORPORA = ("novels", "plays", "wikipedia", "math", "competition", "code")
ARMS = ("full", "tail_64", "tail_8", "draws_64", "draws_8", "zero_8", "cross_entropy")


@dataclass(frozen=True)
class Sizes:
    """vocabulary; windows of `length` tokens that are learned from, `judged` that are not.
    teacher, student: width, blocks and heads. teacher_steps, steps: of the optimizer, with `batch`
    windows. draws: of the tokens beside the k, in the arms with draws.
    """

    vocabulary: int = 4096
    length: int = 128
    windows: int = 5600
    judged: int = 192
    teacher: tuple[int, int, int] = (256, 6, 4)
    student: tuple[int, int, int] = (128, 4, 4)
    teacher_steps: int = 800
    steps: int = 400
    batch: int = 16
    draws: int = 128


QUICK = Sizes(windows=400, judged=16, teacher=(128, 3, 4), teacher_steps=20, steps=10)


def run(arguments: argparse.Namespace) -> Record:
    return run_cpu(arguments) if arguments.preset == "cpu" else run_healing(arguments)


def run_cpu(arguments: argparse.Namespace) -> Record:
    sizes = QUICK if arguments.quick else Sizes()
    record = new_record(
        "students of a small teacher",
        arguments,
        key=("arm", "seed"),
        settings=vars(sizes),
    )
    record.resume()
    with work_folder(arguments) as folder:
        bench = SmallBench(sizes, folder)
        record.facts["teacher"] = bench.teacher_facts()
        for seed in arguments.seeds:
            for arm in ARMS:
                if record.find(arm=arm, seed=seed) is None:
                    others = OtherProcesses()
                    row = bench.row(arm, seed)
                    record.add(arm=arm, seed=seed, **row, busy_cores=others.busy_cores())
    check_cpu(record, arguments.seeds)
    return record


class SmallBench:
    """Text, tokenizer and teacher of the preset `cpu`."""

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        self.sizes, self.folder = sizes, folder
        documents = [d for name in CORPORA for d in corpus(name).documents()]
        learned = [d for i, d in enumerate(documents) if i % HELD_OUT]
        self.tokenizer = data.bpe_tokenizer("\n\n".join(map(str, learned)), sizes.vocabulary)
        self.tokens = self._windows(learned, sizes.windows)
        self.judged = self._windows(documents[::HELD_OUT], sizes.judged)
        self.teacher = self._train_teacher()
        self.judge = self._answer(self.judged, "judge", Full())
        self.answers = {
            (k, draws): self._answer(self.tokens, f"top-{k}-{draws}", TopK(k, draws=draws))
            for k in (64, 8)
            for draws in (0, sizes.draws)
        }

    def _windows(self, documents: Sequence[Any], count: int) -> Tensor:
        return data.calibration_from_documents(
            self.tokenizer, documents, count, self.sizes.length + 1
        ).tokens

    def _model(self, shape: tuple[int, int, int], seed: int) -> nn.Module:
        width, blocks, heads = shape
        return scratch_model(self.sizes.vocabulary, width, blocks, heads, seed=seed)

    def _train_teacher(self) -> nn.Module:
        """The teacher, trained by cross-entropy on the text."""
        sizes, teacher = self.sizes, self._model(self.sizes.teacher, seed=99)
        recipe = Recipe(
            steps=sizes.teacher_steps, batch=sizes.batch, lr=2e-3, warmup=50, weight_decay=0.1
        )
        start = time.monotonic()
        epochs = recipe.epochs(len(self.tokens), "windows")
        batches = ShuffledBatches(self.tokens, sizes.batch, epochs, seed=99)
        loss = TokenLoss(CrossEntropy())
        self._run("teacher", recipe, partial(train, teacher, batches, loss, recipe))
        self.teacher_seconds = time.monotonic() - start
        return teacher.eval()

    def _run(self, name: str, recipe: Recipe, steps: Callable[[RunFolder], Iterable[Step]]) -> None:
        """Take the steps of a training, or read what an earlier process trained."""
        with RunFolder(self.folder / name, {"recipe": repr(recipe)}) as run:
            for _ in steps(run):
                pass

    def _answer(self, tokens: Tensor, name: str, kind: Any) -> Answers:
        return write_answers(
            self.teacher,
            tokens,
            self.folder / name,
            kind,
            tokenizer=self.tokenizer,
            model_id="teacher",
        )

    def teacher_facts(self) -> dict[str, Any]:
        """The teacher's size, loss on the judged text, and calibration error."""
        scores = self._scores(self.teacher)
        return {
            "parameters": count(self.teacher),
            "student_parameters": count(self._model(self.sizes.student, 0)),
            "loss": float(scores.loss.mean()),
            "calibration_error": self._calibration(self.teacher),
            "seconds": self.teacher_seconds,
        }

    def row(self, arm: str, seed: int) -> dict[str, Any]:
        """One student: trained and judged."""
        sizes, student = self.sizes, self._model(self.sizes.student, seed)
        recipe = Recipe(steps=sizes.steps, batch=sizes.batch, lr=3e-3, warmup=50, seed=seed)
        start = time.monotonic()
        self._run(f"{arm}-{seed}", recipe, self._steps(arm, student, recipe))
        seconds = time.monotonic() - start
        scores = self._scores(student.eval())
        assert scores.kl is not None and scores.agree is not None
        return {
            "loss": float(scores.loss.mean()),
            "kl": float(scores.kl.mean()),
            "top1": float(scores.agree.mean()),
            "calibration_error": self._calibration(student),
            "tokens": sizes.steps * sizes.batch * sizes.length,
            "train_seconds": seconds,
            "loss_windows": scores.loss.mean(1).tolist(),
            "kl_windows": scores.kl.mean(1).tolist(),
        }

    def _steps(
        self, arm: str, student: nn.Module, recipe: Recipe
    ) -> Callable[[RunFolder], Iterable[Step]]:
        """The training of one arm."""
        if arm in ("full", "cross_entropy"):
            epochs = recipe.epochs(len(self.tokens), "windows")
            batches = ShuffledBatches(self.tokens, recipe.batch, epochs, recipe.seed)
            if arm == "full":
                loss = TokenLoss(ForwardKL(), teacher=self.teacher)
            else:
                loss = TokenLoss(CrossEntropy())
            return partial(train, student, batches, loss, recipe)
        rule, k = arm.split("_")
        if rule == "draws":
            return partial(distill, student, self.answers[int(k), self.sizes.draws], recipe)
        return partial(distill, student, self.answers[int(k), 0], replace(recipe, tail_rule=rule))

    def _scores(self, model: nn.Module) -> Scores:
        metrics = [Perplexity(self.judged), KL(self.judge, self.judged)]
        return evaluate(model, metrics).scores

    def _calibration(self, model: nn.Module) -> float:
        """The calibration error of `model` on the judged text."""
        confidences, hits = [], []
        with torch.no_grad():
            for window in self.judged:
                p = model(window[None, :-1]).logits[0].softmax(-1).max(-1)
                confidences.append(p.values)
                hits.append(p.indices == window[1:])
        return calibration_error(torch.cat(confidences), torch.cat(hits))


def calibration_error(confidences: Tensor, hits: Tensor) -> float:
    """sum over bins of (share of tokens) |accuracy - mean confidence|."""
    bins = (confidences * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, hits.double() - confidences.double())
    return float(gaps.abs().sum() / len(hits))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check_cpu(record: Record, seeds: Sequence[int]) -> None:
    means = {arm: mean_row(record, arm, seeds) for arm in ARMS}
    for rule, name in (("draws", "tail with draws"), ("tail", "tail as one number")):
        for k in (64, 8):
            for figure in ("loss", "kl"):
                gap = abs(means[f"{rule}_{k}"][figure] - means["full"][figure])
                record.check(f"{name}: {figure} of k = {k} from full, nats", gap, at_most=TAIL_GAP)
    ratio = means["zero_8"]["calibration_error"] / means["full"]["calibration_error"]
    record.check("zero: calibration error over that of full", ratio, at_least=ZERO_RATIO)
    gain = paired_gain(record, "cross_entropy", "full", seeds, "loss_windows")
    record.facts["kd"] = gain.as_dict()
    record.check("kd: loss of cross-entropy minus full, low end, nats", gain.low, at_least=0.0)


def mean_row(record: Record, arm: str, seeds: Sequence[int]) -> dict[str, float]:
    rows = [record.find(arm=arm, seed=seed) for seed in seeds]
    names = ("loss", "kl", "calibration_error")
    return {name: float(np.mean([row[name] for row in rows if row])) for name in names}


def paired_gain(
    record: Record, worse: str, better: str, seeds: Sequence[int], column: str
) -> Interval:
    """The difference of two arms over the same windows and seeds."""
    sides = []
    for arm in (worse, better):
        rows = [record.find(arm=arm, seed=seed) for seed in seeds]
        sides.append(np.mean([row[column] for row in rows if row], 0))
    return paired_difference(*sides)


if __name__ == "__main__":
    flags = parser(__doc__, ("cpu", "smollm2"))
    flags.set_defaults(seeds=[0, 1, 2])
    main(run, flags)
