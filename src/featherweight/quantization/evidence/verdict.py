"""The result in one sentence, and the list of missing measurements; both are computed from the
figures in results.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...reporting import numbers
from .free_running import talk_warnings
from .layers import position
from .results import confidence_level, mapping_at, mappings_at, number_at
from .sizes import OriginalSize, original_sizes


def verdict(results: Mapping[str, Any]) -> str:
    """One sentence on the size and on each of agreement, KL and perplexity that was measured, and a
    warning for each fault of its free answers.
    """
    quality = mapping_at(results, "quality")
    costs = []
    if (agreement := numbers.interval_mean(quality.get("top1"))) is not None:
        percent = numbers.percent(agreement)
        costs.append(f"its most likely next token is the original's {percent} of the time")
    if (kl := numbers.interval_mean(quality.get("kl"))) is not None:
        ends = numbers.interval_ends(quality["kl"])
        level = confidence_level(results)
        interval = f" ({level} interval {ends})" if ends != numbers.DASH else ""
        costs.append(f"the KL from the original is {numbers.number(kl)} nats a token{interval}")
    original, light = (
        numbers.interval_mean(mapping_at(quality, model).get("perplexity"))
        for model in ("original", "light")
    )
    if original is not None and light is not None:
        text = mapping_at(quality, "text").get("name")
        change = f"from {numbers.decimal(original, 2)} to {numbers.decimal(light, 2)}"
        costs.append(f"perplexity{f' on {text}' if text else ''} goes {change}")
    gain = _gain(results)
    warnings = "".join(f" Warning: {w[0].lower()}{w[1:]}." for w in talk_warnings(results))
    if not costs:
        return f"{gain}; what that cost was not measured.{warnings}"
    cost = costs[0] if len(costs) == 1 else f"{', '.join(costs[:-1])}, and {costs[-1]}"
    return f"{gain}: {cost}.{warnings}"


def missing_measurements(results: Mapping[str, Any]) -> list[str]:
    """The names of measurements that a reader may expect and the results lack.

    A figure counts as measured when its key holds a number, or a list or mapping that is not empty.
    """
    quality = mapping_at(results, "quality")
    kl, top1 = (numbers.interval_mean(quality.get(key)) for key in ("kl", "top1"))
    perplexity = numbers.interval_mean(mapping_at(quality, "light").get("perplexity"))
    presence = {
        "KL from the original": kl is not None,
        "perplexity": perplexity is not None,
        "agreement of the most likely token": top1 is not None,
        "tasks": bool(quality.get("tasks")),
        "speed": bool(results.get("speed")),
        "other texts and languages": bool(mappings_at(quality, "others")),
        "free answers": bool(mapping_at(results, "free_running", "rates")),
        "answers to a question": bool(results.get("samples")),
        "the noise floor of another dtype": number_at(quality, "kl_noise_floor") is not None,
    }
    names = [name for name, is_present in presence.items() if not is_present]
    return names + _missing_blocks(mappings_at(results, "layers"))


def _missing_blocks(layers: list[Mapping[str, Any]]) -> list[str]:
    """One entry when the KL of single blocks is missing for some or all blocks, else none."""
    kls: dict[int, Any] = {}
    for layer in layers:
        if (layer_position := position(str(layer.get("name", "")))) is not None:
            kls[layer_position.block] = layer.get("kl_block")
    num_measured = sum(map(numbers.is_number, kls.values()))
    if num_measured == len(kls):
        return []
    return ["the KL of some blocks" if num_measured else "the KL of single blocks"]


def _gain(results: Mapping[str, Any]) -> str:
    name = str(mapping_at(results, "model").get("name") or "The model")
    file_bytes = number_at(mapping_at(results, "size"), "file_bytes")
    if file_bytes is None:
        return f"{name} was compressed"
    gain = f"{name} now takes {numbers.size(file_bytes)}"
    sizes = original_sizes(results)
    return f"{gain} instead of {_size_text(sizes[0])}" if sizes else gain


def _size_text(size: OriginalSize) -> str:
    """The size with its dtype and bits: "269.0 MB (bfloat16 as published, 16 bits a weight)"."""
    words = [size.dtype, size.label if size.label == "as published" else ""]
    details = [" ".join(filter(None, words)), f"{size.bits_text} a weight" if size.bits else ""]
    text = ", ".join(filter(None, details))
    return numbers.size(size.num_bytes) + (f" ({text})" if text else "")
