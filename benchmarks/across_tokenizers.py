"""Does a student learn from a teacher with another tokenizer, and is it worth more than the text?

    python benchmarks/across_tokenizers.py --json across_tokenizers.json

A teacher (width 128, 3 blocks, BPE of 1,024 tokens of novels) is trained on 700 kB of novels. The
students (width 64, 2 blocks, BPE of 700 tokens of Wikipedia) read other novels, 30 kB fifteen times
or 200 kB twice, for as many steps in every arm: cross-entropy alone, and the aligned loss with
cross-entropy at a tenth, without ULD and with it. Judged by the nats a byte of novels that neither
has read. `seconds` is the time of the student's training.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from common import Record, main, new_record, parser
from torch import Tensor, nn
from torch.optim import AdamW

from featherweight.data.corpora import corpus, text
from featherweight.data.small_tokenizers import bpe_tokenizer
from featherweight.data.tokens import windows
from featherweight.distillation import (
    AlignedBatches,
    CrossTokenizerLoss,
    TokenizerMatch,
    aligned_windows,
    match_tokenizers,
)
from featherweight.models.scratch import scratch_model
from featherweight.training import Cosine, ShuffledBatches, parameter_groups, steps
from featherweight.training.losses import CrossEntropy, TokenLoss

LENGTH, TEACHER_TEXT = 64, 700_000
ARMS: dict[str, dict[str, float]] = {
    "cross-entropy": {"exact": 0, "uld": 0, "cross_entropy": 1},
    "exact": {"exact": 1, "uld": 0, "cross_entropy": 0.1},
    "exact and ULD": {"exact": 1, "uld": 0.1, "cross_entropy": 0.1},
}
# Characters of the students' text, steps.
SIZES = {"little": (30_000, 400), "more": (200_000, 400)}
# With enough text of its own, a student gained nothing in 400 steps; it should lose little.
LARGEST_DIFFERENCE = {"little": -0.1, "more": 0.05}


def novels() -> str:
    """The novels as one text."""
    return "\n\n".join(str(document) for document in corpus("novels").documents())


def train(model: nn.Module, batches: Any, loss: nn.Module, num_steps: int) -> None:
    """AdamW at 3e-3 over a cosine."""
    optimizer = AdamW(parameter_groups(model, weight_decay=0.1), lr=3e-3)
    for _ in steps(model.train(), batches, loss, optimizer, Cosine(num_steps, 20), bf16=False):
        pass


def nats_per_byte(model: nn.Module, tokenizer: Any, rows: Tensor) -> float:
    """The cross-entropy of windows over the bytes of their targets."""
    with torch.no_grad():
        loss = TokenLoss(CrossEntropy())(model.eval(), rows)
    return float(loss.total) / len(tokenizer.decode(rows[:, 1:].flatten()).encode())


def make_teacher(tokenizer: Any, content: str, num_steps: int) -> nn.Module:
    """Trained by cross-entropy."""
    model = scratch_model(len(tokenizer), width=128, blocks=3, context=128, seed=1)
    rows = windows(tokenizer, content[:TEACHER_TEXT], LENGTH, None)
    train(model, ShuffledBatches(rows, 16, epochs=99), TokenLoss(CrossEntropy()), num_steps)
    return model.eval()


def add_arm(
    record: Record, key: dict[str, Any], teacher: nn.Module, match: TokenizerMatch, content: str
) -> None:
    """Train one student and judge it."""
    size, num_steps = SIZES[key["text"]]
    chapters = [content[i : i + 4000] for i in range(TEACHER_TEXT, TEACHER_TEXT + size, 4000)]
    batches = AlignedBatches(
        aligned_windows(match, chapters, LENGTH), 8, epochs=999, seed=key["seed"]
    )
    tokenizer = match.student.tokenizer
    student = scratch_model(len(tokenizer), width=64, blocks=2, context=128, seed=key["seed"])
    start = time.perf_counter()
    num_steps = num_steps // 10 if record.settings["quick"] else num_steps
    train(student, batches, CrossTokenizerLoss(teacher, match, **ARMS[key["arm"]]), num_steps)
    seconds = time.perf_counter() - start
    rows = windows(tokenizer, text("novels_valid"), LENGTH, 128)
    record.add(**key, nats_per_byte=nats_per_byte(student, tokenizer, rows), seconds=seconds)


def run(arguments: argparse.Namespace) -> Record:
    record = new_record(
        "distillation across tokenizers",
        arguments,
        num_seeds=2,
        key=("text", "arm", "seed"),
        settings={"quick": arguments.quick},
    )
    record.resume()
    content, wikipedia = novels(), "\n\n".join(map(str, corpus("wikipedia").documents()))
    match = match_tokenizers(
        bpe_tokenizer(content[:300_000], 1024), bpe_tokenizer(wikipedia[:300_000], 700)
    )
    teacher = make_teacher(match.teacher.tokenizer, content, 40 if arguments.quick else 600)
    for size in SIZES:
        for arm in ARMS:
            for seed in record.seeds:
                key = {"text": size, "arm": arm, "seed": seed}
                if record.find(**key) is None:
                    add_arm(record, key, teacher, match, content)
    if not arguments.quick:  # forty steps are too few to compare anything
        for size in SIZES:
            check(record, size)
    return record


def check(record: Record, size: str) -> None:
    """What the aligned loss gains over cross-entropy, in means over the seeds."""
    means = {}
    for arm in ARMS:
        rows = [record.find(text=size, arm=arm, seed=seed) for seed in record.seeds]
        means[arm] = sum(row["nats_per_byte"] for row in rows if row) / len(rows)
    for arm in ("exact", "exact and ULD"):
        record.check(
            f"{size} text, {arm}: nats a byte more than cross-entropy",
            means[arm] - means["cross-entropy"],
            at_most=LARGEST_DIFFERENCE[size],
        )


if __name__ == "__main__":
    main(run, parser(__doc__))
