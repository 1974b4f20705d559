"""`card`: the model card (README.md) of a packed folder: a YAML header for the hub, then a page for
readers.

The page begins with the import that the weights need: without it transformers does not know the
format, warns, and builds the layers with random numbers. Then come the verdict with its intervals,
the three figures of bits per weight, the calibration fingerprint, the recipe and the limits. Every
number is taken from results.json and only rounded or converted to another unit (bytes to MB, shares
to percent), so that the card can be checked against the results.json in the same folder.

The licence is that of the original, and the header marks the model with
`base_model_relation: quantized`. In names from outside, the special characters of Markdown are
escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ...reporting import numbers
from ...reporting.templating import as_yaml, environment, escape_markdown, yaml_block
from .results import confidence_level, load_results, mapping_at, tidy
from .sizes import original_sizes
from .verdict import missing_measurements, verdict

TEMPLATES = Path(__file__).parent / "templates"


def card(results: Mapping[str, Any] | Path | str) -> str:
    """The text of README.md for `results` (the content of results.json, or its path).

    Measurements that the results lack are left out. Raises BadInput when results.json is missing
    or is not an object.
    """
    tidy_results: dict[str, Any] = tidy(load_results(results))
    body = (
        environment(TEMPLATES)
        .get_template("card.md.j2")
        .render(
            results=tidy_results,
            verdict=escape_markdown(verdict(tidy_results)),
            level=confidence_level(tidy_results),
            originals=original_sizes(tidy_results),
            missing=missing_measurements(tidy_results),
            recipe=yaml_block(as_yaml(tidy_results.get("recipe"))),
        )
    )
    text = f"---\n{_metadata(tidy_results).to_yaml()}\n---\n\n{body.strip()}\n"
    return str(ModelCard(text.encode("utf-8", "replace").decode("utf-8")))


def _metadata(results: Mapping[str, Any]) -> ModelCardData:
    model = mapping_at(results, "model")
    evaluations = _evaluations(results)
    return ModelCardData(
        model_name=str(model.get("name") or "model") if evaluations else None,
        base_model=model.get("base_model") or None,
        base_model_relation="quantized",
        license=str(model["licence"]).lower() if model.get("licence") else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["featherweight", "quantized"],
        eval_results=evaluations or None,
    )


def _evaluations(results: Mapping[str, Any]) -> list[EvalResult]:
    quality = mapping_at(results, "quality")
    text = str(mapping_at(quality, "text").get("name") or "text")
    perplexity = numbers.interval_mean(mapping_at(quality, "light").get("perplexity"))
    agreement = "Share of tokens with the same most likely successor"
    metrics = {
        "perplexity": ("Perplexity", perplexity),
        "kl_divergence": (
            "KL from the original, nats a token",
            numbers.interval_mean(quality.get("kl")),
        ),
        "top_1_agreement": (agreement, numbers.interval_mean(quality.get("top1"))),
    }
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "text",
            dataset_name=text,
            metric_type=kind,
            metric_name=name,
            metric_value=float(f"{value:.6g}"),
        )
        for kind, (name, value) in metrics.items()
        if value is not None
    ]
