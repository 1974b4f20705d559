"""Quantize a model that is already in memory, save it, and measure what it cost."""

from __future__ import annotations

import copy
import sys

import featherweight as fw


def main(
    model_name: str = "SmolLM2-135M-Instruct", out: str = "out/example", count: int = 32
) -> float:
    model, tokenizer = fw.load(model_name)
    original = copy.deepcopy(model)
    calibration = fw.data.calibration(tokenizer, count=count, length=64)
    factors = fw.FisherA().collect(model, calibration.tokens)
    plan = fw.Plan({"lm_head": fw.Int(bits=8), "*": fw.Trellis(bits=3)})
    fw.quantize(model, fw.YAQA(), plan, factors, transform=fw.Hadamard())
    fw.save(model, out, tokenizer)
    windows = fw.data.windows(tokenizer, fw.data.text("wikitext2_test"), length=128, count=4)
    results = fw.evaluate(model, [fw.Perplexity(windows), fw.KL(original, windows)])
    print(results.quality["kl"], results.quality["light"]["perplexity"])
    return float(results.quality["kl"]["mean"])


if __name__ == "__main__":
    main(*sys.argv[1:3])
