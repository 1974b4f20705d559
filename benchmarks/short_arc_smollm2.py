"""Does a real model think shorter about arithmetic, and stay right?

    python benchmarks/short_arc_smollm2.py --preset cpu --json smollm2.json      # at most two hours
    python benchmarks/short_arc_smollm2.py --preset gpu --json smollm2-gpu.json  # more of all

SmolLM2-135M-Instruct learns to think from traces that check every step again, one to three times
(the warm start), then by reinforcement with ShortARC, as `fw shorten` does it. 500 held-out
questions are answered before and after, one sample each, paired. Then the trained model is
quantized to 2 bits (preset fast) and answers them on the native engine: what fewer bits do to
length. Everything is kept beside --json, and a killed run continues.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from common import OtherProcesses, Record, main, new_record, parser, work_folder

from featherweight.base.sampling import Sampling
from featherweight.data.tasks import Grader
from featherweight.inference.rollouts import engine_rollouts
from featherweight.reasoning.loop import Recipe
from featherweight.reasoning.marking import Marking
from featherweight.reasoning.page import accuracy, compare_moments, thinking_tokens
from featherweight.workflows.engines import open_engine
from featherweight.workflows.quantize_folder import quantize_folder
from featherweight.workflows.shorten_folder import shorten_folder
from featherweight.workflows.shorten_plan import ShortenSettings, plan_shortening

MODEL = "SmolLM2-135M-Instruct"
TASK = 'arithmetic(kinds=("chain_sum", "leg_counting"), smallest=1, largest=4, count=2000)'
START_ACCURACY, SHARE, LOSS = 0.30, 0.85, 0.05
SETTINGS = {
    "cpu": ShortenSettings(
        task=TASK,
        recipe=Recipe(steps=40, prompts=8, group=8, lr=1e-5, max_tokens=160, save_every=5),
        questions=2000,
        judge_questions=500,
        points=2,
        warm_start=120,
        warm_batch=16,
    ),
    "gpu": ShortenSettings(
        task=TASK,
        recipe=Recipe(steps=300, prompts=32, group=8, lr=5e-6, max_tokens=256),
        questions=2000,
        judge_questions=500,
        points=6,
        warm_start=500,
        warm_batch=32,
        device="cuda",
    ),
}
QUICK = ShortenSettings(
    task=TASK,
    recipe=Recipe(steps=2, prompts=2, group=4, lr=1e-5, max_tokens=96, save_every=1),
    questions=64,
    judge_questions=8,
    points=1,
    warm_start=4,
    warm_batch=4,
)


def run(arguments: argparse.Namespace) -> Record:
    settings = QUICK if arguments.quick else SETTINGS[arguments.preset]
    record = new_record(
        "SmolLM2 that thinks as long as the question needs",
        arguments,
        num_seeds=1,
        key=("model",),
        settings={"settings": repr(settings)},
    )
    record.resume()
    with work_folder(arguments) as folder:
        others = OtherProcesses()
        results = shorten_folder(MODEL, folder.absolute() / "short", settings)
        for moment in ("before", "after"):
            if record.find(model=moment) is None:
                record.add(
                    model=moment,
                    **means(results[moment]),
                    seconds=sum(results["seconds"].values()),
                    busy_cores=others.busy_cores(),
                )
        if record.find(model="after, 2 bits") is None:
            row = light_answers(folder.absolute(), settings)
            record.add(model="after, 2 bits", **row)
    check(record, results)
    return record


def means(answers: dict[str, Any]) -> dict[str, float]:
    """Of the answers to the held-out questions."""
    return {
        "accuracy": accuracy(answers),
        "thinking_tokens": thinking_tokens(answers),
        "tokens": float(np.mean(answers["tokens"])),
        "cut": float(np.mean(answers["cut"])),
    }


def light_answers(folder: Path, settings: ShortenSettings) -> dict[str, float]:
    """The trained model in 2 bits answers the held-out questions on the native engine."""
    recipe = {"preset": "fast", "bits": 2}
    light = quantize_folder(str(folder / "short"), folder / "short-2bit", recipe, evaluate=False)
    plan = plan_shortening(folder / "short", settings)
    sampling = Sampling(max_tokens=settings.recipe.max_tokens)
    engine, _ = open_engine(light)
    with closing(engine), Grader(plan.task) as grader:
        marking = Marking(grader, plan.tokenizer.decode, plan.think_end, sampling.max_tokens)
        texts = engine_rollouts(
            engine,
            [question.ids for question in plan.judge_questions],
            1,
            sampling,
            end_ids=[plan.tokenizer.eos_token_id],
        )
        marks = marking(texts, plan.judge_questions)
    return means(
        {
            "correct": marks.correct.tolist(),
            "lengths": marks.lengths.tolist(),
            "tokens": texts.lengths.tolist(),
            "cut": marks.is_cut.tolist(),
        }
    )


def check(record: Record, results: dict[str, Any]) -> None:
    difference = compare_moments(results)
    record.facts["difference"] = {
        "accuracy": difference.accuracy.as_dict(),
        "token_saving": difference.token_saving.as_dict(),
    }
    start = means(results["before"])["accuracy"]
    record.check("start: right answers after the warm start", start, at_least=START_ACCURACY)
    record.check("tokens: after over before", 1 - difference.token_saving.mean, at_most=SHARE)
    record.check("accuracy: after less before, low end", difference.accuracy.low, at_least=-LOSS)


if __name__ == "__main__":
    main(run, parser(__doc__, tuple(SETTINGS)))
