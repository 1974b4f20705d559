"""Compares the speed of rollouts with transformers' `generate`, and their distribution with the
model's.

The model is SmolLM2. `distinct`: 64 different prompts of equal length, answers of equal length.
`groups`: 8 prompts of about 256 tokens with 8 answers each, which end by themselves; useful tokens
are those up to the end token. `native`: the same groups from the native engine, with the policy
rounded to Int(8); the seconds of rounding and opening it are a column. Programs take turns.

Answers end, with the preset `sentences`, at the first full stop (prompts are text of WikiText-2),
with `gsm8k`, at the model's end token (prompts are questions of GSM8K after solved ones). The row
says how long they were; the claim is for a mean of at most a third of the cap.

`distribution`: each sampler draws with temperature and top-p. For each token the model itself gives
the mass m of the tokens that are more likely, and m + u p, with u uniform, is uniform for an exact
sampler. Twenty cells and a chi-squared test give a p-value for each sampler; the policy in 8 bits
is compared with the logits of its own weights in PyTorch.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import OtherProcesses, Record, main, new_record, parser, time_in_turns
from folders import MODEL

import featherweight as fw
from featherweight import data
from featherweight.data.corpora import corpus
from featherweight.inference import engine_rollouts
from featherweight.inference.native.reader import open_runtime
from featherweight.models.sampling import Rollouts, end_tokens, rollouts
from featherweight.ops.sampling.batched import truncate
from featherweight.quantization.layers import keep_decoded

DISTINCT_RATIO, GROUPS_RATIO, SMALLEST_P = 1.1, 2.0, 1e-3
GROUP, CELLS = 8, 20
Ids = list[int]


@dataclass(frozen=True)
class Sizes:
    """texts: sampled at once. prompt: tokens of the prompt of a group. distinct_prompt, distinct:
    tokens of each distinct prompt and of its answer, which is longer, so that decoding is what is
    measured. cap: most tokens of an answer in a group. checked: tokens of each answer whose
    distribution is tested. rounds: of each rival.
    """

    texts: int = 64
    prompt: int = 256
    distinct_prompt: int = 32
    distinct: int = 128
    cap: int = 128
    checked: int = 32
    rounds: int = 3


QUICK = Sizes(32, prompt=128, distinct_prompt=8, distinct=32, cap=64, checked=8, rounds=1)


def run(arguments: argparse.Namespace) -> Record:
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.preset == "gsm8k":
        sizes = replace(sizes, cap=6 * sizes.cap)
    settings = {"preset": arguments.preset, **vars(sizes)}
    record = new_record("rollouts", arguments, num_seeds=1, settings=settings)
    model, tokenizer = fw.load(MODEL)
    windows = data.windows(tokenizer, data.text("wikitext2_test"), sizes.prompt, sizes.texts)
    rows = windows[:, :-1].tolist()
    _distinct(record, model, [row[: sizes.distinct_prompt] for row in rows], sizes)
    if arguments.preset == "gsm8k":
        prompts, ends = questions(tokenizer, sizes), sorted(end_tokens(model))
    else:
        prompts, ends = rows[: sizes.texts // GROUP], full_stops(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        light, _ = fw.load(MODEL)
        fw.quantize(light, fw.Nearest(), fw.Plan({"*": fw.Int(bits=8)}))
        fw.save(light, Path(folder) / "policy", tokenizer)
        with closing(open_runtime(Path(folder) / "policy")) as engine:
            seconds = time.monotonic() - start
            _groups(record, model, engine, prompts, ends, sizes, seconds)
            _distribution(record, model, light, engine, prompts, sizes)
    return record


def _distinct(record: Record, model: Any, prompts: list[Ids], sizes: Sizes) -> None:
    """Prompts and answers of equal length: nothing to share, nothing to compact."""
    count = sizes.distinct
    sampling = fw.Sampling(max_tokens=count)
    rivals: dict[str, Callable[[], Any]] = {
        "rollouts": lambda: rollouts(model, prompts, 1, sampling, end_ids=()),
        "generate": lambda: generate(model, prompts, 1, count, ()),
    }
    others = OtherProcesses()
    seconds = time_in_turns(rivals, sizes.rounds)
    for name, times in seconds.items():
        record.add(
            measurement="distinct",
            sampler=name,
            texts=len(prompts),
            useful_tokens_per_second=len(prompts) * count / min(times),
            seconds=times,
            others=others.busy_cores(),
        )
    record.check(
        "distinct: tokens a second against generate",
        min(seconds["generate"]) / min(seconds["rollouts"]),
        at_least=DISTINCT_RATIO,
    )


def _groups(
    record: Record,
    model: Any,
    engine: Any,
    prompts: list[Ids],
    ends: list[int],
    sizes: Sizes,
    rounding_seconds: float,
) -> None:
    """Groups of answers that end by themselves."""
    sampling, tokens = fw.Sampling(max_tokens=sizes.cap), dict[str, list[int]]()

    def sampler(name: str, draw: Callable[[int], Sequence[int]]) -> Callable[[], None]:
        def call() -> None:
            lengths = tokens.setdefault(name, [])
            lengths.append(int(sum(draw(len(lengths)))))

        return call

    def ours(seed: int) -> Sequence[int]:
        return answer_lengths(rollouts(model, prompts, GROUP, sampling, seed, end_ids=ends))

    def native(seed: int) -> Sequence[int]:
        return answer_lengths(engine_rollouts(engine, prompts, GROUP, sampling, seed, end_ids=ends))

    rivals = {
        "rollouts": sampler("rollouts", ours),
        "generate": sampler(
            "generate",
            lambda _: [len(x) for x in generate(model, prompts, GROUP, sizes.cap, ends)],
        ),
        "native": sampler("native", native),
    }
    others = OtherProcesses()
    seconds = time_in_turns(rivals, sizes.rounds)
    rates = {}
    for name, times in seconds.items():
        # The first call of each rival was a warm-up.
        rounds = list(zip(tokens[name][1:], times, strict=True))
        rates[name] = max(count / second for count, second in rounds)
        record.add(
            measurement="groups",
            sampler=name,
            texts=GROUP * len(prompts),
            useful_tokens_per_second=rates[name],
            mean_length=float(np.mean(tokens[name])) / (GROUP * len(prompts)),
            cap=sizes.cap,
            rounding_seconds=rounding_seconds if name == "native" else None,
            seconds=times,
            others=others.busy_cores(),
        )
    mean = float(np.mean([*tokens["rollouts"], *tokens["generate"]])) / (GROUP * len(prompts))
    record.check("groups: mean length against the cap", mean / sizes.cap, at_most=1 / 3)
    record.check(
        "groups: useful tokens a second against generate",
        rates["rollouts"] / rates["generate"],
        at_least=GROUPS_RATIO,
    )


def _distribution(
    record: Record, model: Any, light: Any, engine: Any, prompts: list[Ids], sizes: Sizes
) -> None:
    sampling = fw.Sampling(max_tokens=sizes.checked, temperature=0.8, top_p=0.95)
    count = sizes.checked
    answers = {
        "rollouts": answers_of(rollouts(model, prompts, GROUP, sampling, 7, end_ids=())),
        "generate": generate(model, prompts, GROUP, count, (), temperature=0.8, top_p=0.95),
        "native": answers_of(engine_rollouts(engine, prompts, GROUP, sampling, 7)),
    }
    texts = [prompt for prompt in prompts for _ in range(GROUP)]
    for name, lists in answers.items():
        with keep_decoded(light):
            judge = light if name == "native" else model
            masses = rank_masses(judge, texts, lists, sampling)
        p = uniformity(masses)
        record.add(measurement="distribution", sampler=name, tokens=len(masses), p_value=p)
        record.check(f"distribution: {name}, p-value", p, at_least=SMALLEST_P)


def generate(
    model: Any,
    prompts: list[Ids],
    samples: int,
    count: int,
    ends: Sequence[int],
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> list[Ids]:
    """The answers of transformers' `generate`, up to their end tokens."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    output = model.generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=top_p,
        max_new_tokens=count,
        num_return_sequences=samples,
        # Without end tokens, only this keeps the model's own one from ending a text.
        min_new_tokens=None if ends else count,
        eos_token_id=list(ends) or None,
        pad_token_id=0,
    )
    answers = output[:, longest:].tolist()
    return [_cut(answer, set(ends)) for answer in answers]


def _cut(answer: Ids, ends: set[int]) -> Ids:
    stop = next((i for i, token in enumerate(answer) if token in ends), len(answer))
    return answer[: stop + 1]


def answer_lengths(samples: Rollouts) -> list[int]:
    lengths: list[int] = samples.lengths.tolist()
    return lengths


def answers_of(samples: Rollouts) -> list[Ids]:
    return [samples.answer(row) for row in range(len(samples.finish))]


@torch.no_grad()
def rank_masses(
    model: Any, prompts: list[Ids], answers: list[Ids], sampling: fw.Sampling, seed: int = 0
) -> np.ndarray:
    """For each token of the answers, the mass of the more likely tokens plus a uniform share of its
    own, under the truncated distribution of `model` at the sampling temperature. NaN for a token
    that truncation removes.
    """
    random, masses = np.random.default_rng(seed), []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]])
        logits = model(ids, logits_to_keep=len(answer) + 1).logits[0, :-1].float()
        p = truncate(logits / sampling.temperature, sampling).double().softmax(-1)
        own = p.gather(1, torch.tensor(answer)[:, None])
        larger = torch.where(p > own, p, 0).sum(-1)
        share = (p * (p == own)).sum(-1) * torch.from_numpy(random.random(len(answer)))
        masses.append(torch.where(own[:, 0] > 0, larger + share, math.nan).numpy())
    return np.concatenate(masses)


def uniformity(masses: np.ndarray) -> float:
    """The p-value of a chi-squared test that `masses` are uniform on 0 to 1. Tokens that cannot be
    drawn (NaN) are a cell of their own, of which rounding may give one in a thousand.
    """
    drawable = masses[np.isfinite(masses)]
    if len(masses) - len(drawable) > max(1, len(masses) // 1000):
        return 0.0
    counts = np.histogram(drawable, CELLS, (0, 1))[0]
    mean = len(drawable) / CELLS
    statistic = float(((counts - mean) ** 2 / mean).sum())
    degrees = torch.tensor((CELLS - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(degrees, torch.tensor(statistic / 2).double()))


def full_stops(tokenizer: Any) -> list[int]:
    """The ids of all tokens that end with a full stop."""
    return [id for token, id in sorted(tokenizer.get_vocab().items()) if token.endswith(".")]


def questions(tokenizer: Any, sizes: Sizes) -> list[Ids]:
    """Chat prompts of GSM8K of at most about `sizes.prompt` tokens, with solved questions before
    the asked one where they fit.
    """
    documents: list[Any] = replace(corpus("gsm8k_test"), form="dialogue").documents()
    prompts = []
    for index in range(sizes.texts // GROUP):
        text = f"Question: {documents[index].prompt}"
        for solved in documents[100 + 5 * index :]:
            longer = f"Question: {solved.prompt}\nAnswer: {solved.answer}\n\n{text}"
            if len(_chat(tokenizer, longer)) <= sizes.prompt:
                text = longer
        prompts.append(_chat(tokenizer, text))
    return prompts


def _chat(tokenizer: Any, text: str) -> Ids:
    messages = [{"role": "user", "content": text}]
    chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: Ids = tokenizer(chat, add_special_tokens=False).input_ids
    return ids


if __name__ == "__main__":
    main(run, parser(__doc__, presets=("sentences", "gsm8k")))
