"""How much memory and time does a loss over a large vocabulary take, in chunks and in one piece?

    python benchmarks/chunked_loss.py --json chunked_loss.json

The head of Qwen2.5-0.5B: width 896, vocabulary 151,936, 2,048 tokens, float32. Each arm runs in a
process of its own: forward and backward through the head, as `ops.divergence.row_losses` computes
them and as torch does (whole logits). `extra_bytes` is the peak of resident memory beyond the
parameters, their gradients, the hidden states and theirs. In a further micro-batch autograd adds
the gradient of the head to that of the first, so for a moment there are two, in either form.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from common import Record, main, new_record, parser
from torch import Tensor
from torch.nn import functional

from featherweight.base import machine
from featherweight.ops import divergence
from featherweight.ops.divergence import Projection, row_losses

WIDTH, VOCABULARY, TOKENS, QUICK_TOKENS = 896, 151_936, 2048, 256
TOP_K = 64
LARGEST_EXTRA = 160e6
LOSSES = ("cross_entropy", "forward_kl", "top_k_kl")
FORMS = ("chunked", "plain")


def plain_loss(name: str, logits: Tensor, targets: tuple[Any, ...]) -> Tensor:
    """The loss over whole logits, as torch's own functions compute it."""
    if name == "cross_entropy":
        return functional.cross_entropy(logits, targets[0])
    if name == "forward_kl":
        with torch.no_grad():
            teacher = functional.linear(targets[0].hidden, targets[0].weight).log_softmax(-1)
        log_q = logits.log_softmax(-1)
        return functional.kl_div(log_q, teacher, reduction="batchmean", log_target=True)
    return divergence.top_k_kl(logits, *targets).mean()


def targets_of(
    name: str, tokens: int, vocabulary: int, generator: torch.Generator
) -> tuple[Any, ...]:
    """What the loss compares with: ids, a teacher of half the width, or cached answers."""
    if name == "cross_entropy":
        return (torch.randint(0, vocabulary, (tokens,), generator=generator),)
    if name == "forward_kl":
        hidden = torch.randn(tokens, WIDTH // 2, generator=generator)
        weight = torch.empty(vocabulary, WIDTH // 2).normal_(0, 0.05, generator=generator)
        return (Projection(hidden, weight),)
    ids = torch.randint(0, vocabulary // TOP_K, (tokens, TOP_K), generator=generator)
    log_p = torch.randn(tokens, TOP_K, generator=generator).log_softmax(-1) - 0.1
    tail = (1 - log_p.exp().sum(-1)).log()
    return ids + torch.arange(TOP_K) * (vocabulary // TOP_K), log_p, tail


def measure(name: str, form: str, tokens: int, threads: int) -> dict[str, float]:
    """One arm, in a fresh process."""
    torch.set_num_threads(threads)
    arm(name, form, 8, 1024)  # loads what torch loads at the first pass
    return arm(name, form, tokens, VOCABULARY)


def arm(name: str, form: str, tokens: int, vocabulary: int) -> dict[str, float]:
    """One forward and backward pass: its extra memory and its seconds."""
    generator = torch.Generator().manual_seed(0)
    targets = targets_of(name, tokens, vocabulary, generator)
    weight = torch.empty(vocabulary, WIDTH).normal_(0, 0.05, generator=generator).requires_grad_()
    hidden = torch.empty(tokens, WIDTH).normal_(generator=generator).requires_grad_()
    held_bytes = reset_peak()
    start = time.perf_counter()
    if form == "plain":
        logits = functional.linear(hidden, weight)
        # The gradients of weight and hidden states come after that of the logits.
        peaks: list[int] = []
        logits.register_hook(lambda _: peaks.append(machine.peak_memory_bytes()))
        loss = plain_loss(name, logits, targets)
        del logits
        loss.backward()
        extra_bytes = peaks[0] - held_bytes
    else:
        definition = getattr(divergence, name)
        loss = row_losses(definition, Projection(hidden, weight), *targets).mean()
        forward_bytes = machine.peak_memory_bytes() - held_bytes
        loss.backward()
        # The backward pass makes the gradients at its start and holds them.
        gradient_bytes = 4 * (weight.numel() + hidden.numel())
        backward_bytes = machine.peak_memory_bytes() - held_bytes - gradient_bytes
        extra_bytes = max(forward_bytes, backward_bytes)
    seconds = time.perf_counter() - start
    assert weight.grad is not None and hidden.grad is not None
    return {
        "mean_loss": loss.item(),
        "weight_gradient": weight.grad.norm().item(),
        "hidden_gradient": hidden.grad.norm().item(),
        "extra_bytes": extra_bytes,
        "seconds": seconds,
    }


def reset_peak() -> int:
    """Let the system forget the peak of this process's memory; returns what it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return machine.resident_memory_bytes()


def run(arguments: argparse.Namespace) -> Record:
    tokens = QUICK_TOKENS if arguments.quick else TOKENS
    record = new_record(
        "a loss over 151,936 tokens, in chunks and in one piece",
        arguments,
        num_seeds=0,
        key=("loss", "form"),
        settings={"width": WIDTH, "vocabulary": VOCABULARY, "tokens": tokens},
    )
    record.resume()
    names = LOSSES if arguments.preset == "all" else (arguments.preset,)
    for name in names:
        for form in FORMS:
            if record.find(loss=name, form=form) is None:
                # A process of its own: what an arm has freed would hide the peak of the next.
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    numbers = pool.submit(measure, name, form, tokens, torch.get_num_threads())
                    record.add(loss=name, form=form, **numbers.result())
    for name in names:
        check(record, name)
    return record


def check(record: Record, name: str) -> None:
    """The memory of the chunked form, and that both forms agree."""
    chunked, plain = (record.find(loss=name, form=form) for form in FORMS)
    assert chunked is not None and plain is not None
    record.check(
        f"{name}: extra bytes of the chunked form", chunked["extra_bytes"], at_most=LARGEST_EXTRA
    )
    for key in ("mean_loss", "weight_gradient", "hidden_gradient"):
        difference = abs(chunked[key] / plain[key] - 1)
        record.check(f"{name}: relative difference of {key}", difference, at_most=1e-3)


if __name__ == "__main__":
    main(run, parser(__doc__, presets=("all", *LOSSES)))
