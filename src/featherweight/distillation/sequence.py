"""Sequence-level distillation: the teacher writes answers once, and the student learns them as text
(Kim and Rush 2016). It needs nothing but text of the teacher, so any teacher will do, and the two
may have different vocabularies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from ..base.events import Listener, silent, track
from ..base.files import write_atomic
from ..base.run_folder import RunFolder
from ..base.sampling import Sampling
from ..data.examples import Example, collate
from ..models.sampling import rollouts
from ..training import ShuffledBatches, Step
from ..training.losses import CrossEntropy, TokenLoss
from .recipe import Recipe, train

PROMPTS = 64  # that are answered before their answers are written down


def distill_sequences(
    student: nn.Module,
    examples: Sequence[Example],
    recipe: Recipe | None = None,
    run: RunFolder | None = None,
    listener: Listener = silent,
) -> Iterator[Step]:
    """Train `student` on the teacher's texts, and yield a `Step` after each step of the
    optimizer.
    """
    recipe = recipe or Recipe()
    epochs = recipe.epochs(len(examples), "texts")
    batches = ShuffledBatches(examples, recipe.batch, epochs, recipe.seed, collate)
    return train(student, batches, TokenLoss(CrossEntropy()), recipe, run, listener)


def write_texts(
    teacher: nn.Module,
    prompts: Sequence[Sequence[int]],
    run: RunFolder,
    sampling: Sampling,
    seed: int = 0,
    *,
    model_id: str,
    listener: Listener = silent,
) -> list[Example]:
    """The teacher's answer to each prompt, kept in the run folder: a killed run continues behind
    the last `PROMPTS` of them.

    model_id: identifies the weights. An answer that was cut at `sampling.max_tokens` is learned as
    far as it goes, without an end. Raises UsageError as `rollouts` does.
    """
    folder = run.work / "texts"
    folder.mkdir(exist_ok=True)
    starts = range(0, len(prompts), PROMPTS)
    parts = track(iter(starts), "texts", len(starts), listener)
    examples: list[Example] = []
    for start in parts:
        part = [list(ids) for ids in prompts[start : start + PROMPTS]]
        key = json.dumps([part, repr(sampling), seed, model_id])
        fingerprint = hashlib.sha256(key.encode()).hexdigest()
        unit, path = f"texts/{start}", folder / f"{start:07d}.json"
        if run.done(unit, fingerprint) is None:
            samples = rollouts(teacher, part, sampling=sampling, seed=seed)
            answers = [samples.answer(index) for index in range(len(part))]
            write_atomic(path, json.dumps(answers))
            run.finish_unit(unit, fingerprint, path, {})
        answers = json.loads(path.read_text(encoding="utf-8"))
        examples += [text_example(*pair) for pair in zip(part, answers, strict=True)]
    return examples


def text_example(prompt: Sequence[int], answer: Sequence[int]) -> Example:
    """An example whose answer is learned."""
    ids = torch.tensor([*prompt, *answer])
    return Example(ids, torch.arange(len(ids)) >= len(prompt))
