"""What short_arc.py runs in processes of their own: a start, a training, and its judgement."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import short_arc_arms
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from featherweight.base.run_folder import RunFolder
from featherweight.base.sampling import Sampling
from featherweight.data.small_tokenizers import word_tokenizer
from featherweight.data.tasks import Grader
from featherweight.data.tasks.op_chain import END, WORDS, OpChain
from featherweight.models.scratch import scratch_model
from featherweight.reasoning.loop import Recipe, train
from featherweight.reasoning.marking import Marking
from featherweight.reasoning.methods import METHODS
from featherweight.reasoning.questions import Question, make_questions
from featherweight.reasoning.samplers import LocalSampler
from featherweight.reasoning.warm_start import trace_examples, warm_start

TIERS = ((1, 3), (4, 7), (8, 10))  # operations
LIMIT = 128
BATCH = 512
PARTS = ("test", "choice")


@dataclass(frozen=True)
class Sizes:
    """width, blocks, heads: of the model. traces: texts of the start, learned in start_steps steps
    of start_batch texts. steps, prompts, accumulate, group, lr: of the reinforcement. judged:
    questions a tier; choice: further ones, for the choice of coefficients.
    """

    width: int = 96
    blocks: int = 4
    heads: int = 4
    traces: int = 20_000
    start_steps: int = 1000
    start_batch: int = 64
    start_lr: float = 3e-3
    questions: int = 10_000
    steps: int = 100
    prompts: int = 8
    accumulate: int = 4
    group: int = 8
    lr: float = 1e-4
    judged: int = 2000
    choice: int = 500


QUICK = Sizes(traces=2000, start_steps=20, questions=200, steps=3, judged=20, choice=20)


@dataclass(frozen=True)
class Job:
    """One row of the record."""

    arm: str
    coefficient: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.coefficient:g}-{self.seed}"


class Setup:
    """Task, tokenizer and model of one process."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        torch.set_num_threads(1)
        self.sizes, self.seed = sizes, seed
        self.task = OpChain(count=max(sizes.traces, sizes.questions))
        self.tokenizer = word_tokenizer(WORDS)
        self.model = scratch_model(
            len(self.tokenizer),
            sizes.width,
            sizes.blocks,
            sizes.heads,
            context=2 * LIMIT,
            seed=seed,
        )

    def encode(self, example: Any) -> list[int]:
        ids: list[int] = self.tokenizer.encode(self.task.prompt(example))
        return ids

    def questions(self) -> list[Question]:
        """Of the training."""
        examples = list(self.task.examples("train"))[: self.sizes.questions]
        return make_questions(examples, self.encode, lambda e: tier(len(e["operations"])))

    def marking(self, grader: Grader) -> Marking:
        end = (self.tokenizer.convert_tokens_to_ids(END),)
        return Marking(grader, self.tokenizer.decode, end, LIMIT)

    def judge(self, job: Job, folder: Path) -> dict[str, float]:
        """Let the model answer the questions of both parts, keep the answers, return the means of
        the test.
        """
        sizes = self.sizes
        tensors, means = {}, {}
        chains = [
            OpChain(sizes.judged + sizes.choice, shortest, longest) for shortest, longest in TIERS
        ]
        examples = [list(chain.examples("test")) for chain in chains]
        spans = {"test": slice(0, sizes.judged), "choice": slice(sizes.judged, None)}
        sampler = LocalSampler(self.model, batch_size=BATCH)
        with Grader(self.task) as grader:
            for part in PARTS:
                questions = make_questions(
                    [e for group in examples for e in group[spans[part]]],
                    self.encode,
                    lambda e: tier(len(e["operations"])),
                )
                texts = sampler.generate(
                    [q.ids for q in questions], 1, Sampling(max_tokens=LIMIT), 1000 + job.seed
                )
                marks = self.marking(grader)(texts, questions)
                operations = [len(q.example["operations"]) for q in questions]
                tensors |= {
                    f"{part}/correct": marks.correct,
                    f"{part}/lengths": marks.lengths,
                    f"{part}/tier": marks.bucket,
                    f"{part}/operations": torch.tensor(operations),
                }
        for index in range(len(TIERS)):
            rows = tensors["test/tier"] == index
            means[f"accuracy_{index}"] = float(tensors["test/correct"][rows].mean())
            means[f"length_{index}"] = float(tensors["test/lengths"][rows].mean())
        save_file(tensors, folder / f"{job.name}.answers.safetensors")
        return {
            "accuracy": float(tensors["test/correct"].mean()),
            "length": float(tensors["test/lengths"].mean()),
            **means,
        }


def tier(operations: int) -> int:
    """0, 1 or 2."""
    return next(i for i, (low, high) in enumerate(TIERS) if low <= operations <= high)


def do_job(job: Job, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """The row of a job."""
    return (start_job if job.arm == "start" else run_job)(job, sizes, folder)


def start_job(job: Job, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Train the start of a seed on traces, and judge it."""
    began = time.process_time()
    setup = Setup(sizes, job.seed)
    task, tokenizer = setup.task, setup.tokenizer
    examples = trace_examples(
        list(task.examples("train"))[: sizes.traces],
        setup.encode,
        lambda e: tokenizer.encode(task.trace(e, job.seed)),
        tokenizer.eos_token_id,
    )
    with RunFolder(folder / job.name, {"start": repr(sizes), "seed": job.seed}) as run:
        for _ in warm_start(
            setup.model,
            examples,
            num_steps=sizes.start_steps,
            batch=sizes.start_batch,
            lr=sizes.start_lr,
            seed=job.seed,
            run=run,
        ):
            pass
    save_file(_weights(setup.model), folder / f"start-{job.seed}.safetensors")
    return _row(job, setup.judge(job, folder), began)


def run_job(job: Job, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Train an arm from the start of its seed, and judge it."""
    began = time.process_time()
    setup = Setup(sizes, job.seed)
    setup.model.load_state_dict(load_file(folder / f"start-{job.seed}.safetensors"), strict=False)
    recipe = Recipe(
        steps=sizes.steps,
        prompts=sizes.prompts,
        accumulate=sizes.accumulate,
        group=sizes.group,
        lr=sizes.lr,
        max_tokens=LIMIT,
        bf16=False,  # products of width 96 are slower in bfloat16
        seed=job.seed,
    )
    control = short_arc_arms.control(job.arm, job.coefficient)
    description = {"recipe": repr(recipe), "control": repr(control)}
    history = []
    with (
        Grader(setup.task) as grader,
        RunFolder(folder / job.name, description) as run,
    ):
        for step in train(
            setup.model,
            setup.questions(),
            LocalSampler(setup.model, batch_size=BATCH),
            setup.marking(grader),
            control,
            METHODS["dr_grpo"](LIMIT),
            recipe,
            run,
        ):
            history.append([step.figures["accuracy"], step.figures["length"]])
    return _row(job, setup.judge(job, folder), began) | {"history": history}


def read_answers(folder: Path, job: Job, part: str) -> tuple[np.ndarray, ...]:
    """correct, lengths, tier, operations of the answers of a job."""
    tensors = load_file(folder / f"{job.name}.answers.safetensors")
    names = ("correct", "lengths", "tier", "operations")
    return tuple(tensors[f"{part}/{name}"].numpy() for name in names)


def _row(job: Job, means: dict[str, float], began: float) -> dict[str, Any]:
    core_minutes = (time.process_time() - began) / 60
    return {**vars(job), **means, "core_minutes": core_minutes}


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights, tied ones once."""
    state = model.state_dict()
    return {name: state[name].clone() for name, _ in model.named_parameters()}
