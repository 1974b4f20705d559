"""Does lm-evaluation-harness judge a model the same through transformers and through `fw serve`?

    python benchmarks/harness.py --data FOLDER          # needs the extra featherweight[eval]

A light Qwen2.5-Coder-0.5B-Instruct (`--folder`; else 4 bits, made first) answers the harness's own
`hf` model (on the packed folder, PyTorch) and its `local-completions` (against `fw serve`: batched,
log-likelihoods through echo) on ARC-easy and LAMBADA, and these two and `local-chat-completions` on
GSM8K, in the model's chat template. The tasks are dicts over local JSON lines, so no hub is asked.
`--data` holds zeroshot/arc_easy.jsonl.gz (query, choices, gold), zeroshot/lambada_openai.jsonl.gz
(context, continuation) and math/gsm8k_test.jsonl.gz (question, answer). A killed run with --json
continues after the last judge and task that it finished.

By hand, on a packed folder OUT:

    python -c "import featherweight.interchange.hf; from lm_eval.__main__ import cli_evaluate; \\
        cli_evaluate()" --model hf --model_args pretrained=OUT --tasks arc_easy
    lm_eval --model local-completions --model_args \\
        base_url=http://127.0.0.1:8000/v1/completions,model=OUT,tokenizer=OUT --tasks arc_easy

`hf` computes in floating point and the server's engine with activations in eight bits, so single
items may differ; the accuracies must agree within the harness's standard errors.
"""

from __future__ import annotations

import argparse
import gzip
import os
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import light_coder
from common import Record, main, new_record, parser
from servers import serve

ITEMS, CHAT_ITEMS, QUICK_ITEMS, QUICK_CHAT_ITEMS = 200, 50, 20, 5
CONTEXT, BATCH = 2048, 8
FILES = {
    "arc_easy": "zeroshot/arc_easy.jsonl.gz",
    "lambada": "zeroshot/lambada_openai.jsonl.gz",
    "gsm8k": "math/gsm8k_test.jsonl.gz",
}
METRICS = {
    "arc_easy": ("acc", "acc_norm"),
    "lambada": ("acc", "perplexity"),
    "gsm8k": ("exact_match",),
}


def tasks(work: Path, items: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The tasks as the harness reads them, over the files in `work`."""
    common_fields: dict[str, Any] = {"test_split": "test", "num_fewshot": 0, "dataset_path": "json"}
    definitions: dict[str, dict[str, Any]] = {
        "arc_easy": {
            "output_type": "multiple_choice",
            "doc_to_text": "{{query}}\nAnswer:",
            "doc_to_target": "{{gold}}",
            "doc_to_choice": "{{choices}}",
            "metric_list": [_metric(name) for name in METRICS["arc_easy"]],
        },
        "lambada": {
            "output_type": "loglikelihood",
            "doc_to_text": "{{context}}",
            "doc_to_target": "{{' ' + continuation}}",
            "metric_list": [_metric(name) for name in METRICS["lambada"]],
        },
        "gsm8k": {
            "output_type": "generate_until",
            "doc_to_text": "{{question}}\nReason in a few short steps, and end with the line "
            "'#### ' and the number.",
            "doc_to_target": "{{answer.split('#### ')[-1].replace(',', '')}}",
            "generation_kwargs": {"until": ["\n\n\n"], "max_gen_toks": 256, "temperature": 0},
            "filter_list": [
                {
                    "name": "last-number",
                    "filter": [
                        {
                            "function": "regex",
                            "regex_pattern": r"(-?[0-9][0-9,]*)",
                            "group_select": -1,
                        },
                        {"function": "take_first"},
                    ],
                }
            ],
            "metric_list": [_metric("exact_match") | {"regexes_to_ignore": [","]}],
        },
    }
    return [
        {
            "task": f"local_{name}_{items}",
            "dataset_kwargs": {"data_files": {"test": str(work / f"{name}.jsonl")}},
            **common_fields,
            **definitions[name],
        }
        for name in names
    ]


def _metric(name: str) -> dict[str, Any]:
    is_perplexity = name == "perplexity"
    aggregation = "perplexity" if is_perplexity else "mean"
    return {"metric": name, "aggregation": aggregation, "higher_is_better": not is_perplexity}


def write_items(data: Path, work: Path, counts: dict[str, int]) -> None:
    """The first items of each file, unpacked."""
    for name, count in counts.items():
        with gzip.open(data / FILES[name], "rt", encoding="utf-8") as lines:
            (work / f"{name}.jsonl").write_text("".join(islice(lines, count)), encoding="utf-8")


def judge(model: str, task_list: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """The harness's results by task."""
    import lm_eval

    results = lm_eval.simple_evaluate(
        model=model, tasks=task_list, bootstrap_iters=1000, verbosity="WARNING", **options
    )
    assert results is not None
    return {_name(task): row for task, row in results["results"].items()}


def add(record: Record, judge_name: str, task_list: list[dict[str, Any]], **options: Any) -> None:
    """A row for each metric of each task that the record lacks."""
    names = {_name(task["task"]): task for task in task_list}
    missing = [
        task
        for name, task in names.items()
        if any(
            record.find(judge=judge_name, task=name, metric=metric) is None
            for metric in METRICS[name]
        )
    ]
    if not missing:
        return
    start = time.monotonic()
    results = judge(judge_name, missing, **options)
    seconds = time.monotonic() - start
    for task, values in results.items():
        for metric in METRICS[task]:
            key = next(key for key in values if key.split(",")[0] == metric)
            error = values.get(key.replace(metric, f"{metric}_stderr", 1), float("nan"))
            record.add(
                judge=judge_name,
                task=task,
                metric=metric,
                value=float(values[key]),
                standard_error=float(error) if error != "N/A" else float("nan"),
                seconds=seconds,
            )


def _name(task: str) -> str:
    """The name in METRICS of a task whose full name is local_NAME_ITEMS."""
    return task.split("_", 1)[1].rsplit("_", 1)[0]


def run(arguments: argparse.Namespace) -> Record:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folder = arguments.folder or light_coder.light(arguments.preset, arguments.quick)
    items = arguments.items or (QUICK_ITEMS if arguments.quick else ITEMS)
    chat_items = arguments.chat_items or (QUICK_CHAT_ITEMS if arguments.quick else CHAT_ITEMS)
    record = new_record(
        "harness: lm-evaluation-harness on transformers and on the server",
        arguments,
        num_seeds=1,
        key=("judge", "task", "metric"),
        settings={"folder": folder.name, "items": items, "chat_items": chat_items},
    )
    record.resume()
    with tempfile.TemporaryDirectory() as work_name:
        work = Path(work_name)
        os.environ["HF_DATASETS_CACHE"] = str(work / "datasets")
        write_items(
            arguments.data, work, {"arc_easy": items, "lambada": items, "gsm8k": chat_items}
        )
        text_tasks = tasks(work, items, ("arc_easy", "lambada"))
        chat_tasks = tasks(work, chat_items, ("gsm8k",))
        chat: dict[str, Any] = {"apply_chat_template": True}
        server_options = ["--context", str(CONTEXT), "--slots", str(BATCH)]
        with serve(folder, *server_options) as (_, url):
            named = {"model": folder.name, "num_concurrent": BATCH}
            texts = named | {
                "base_url": f"{url}/v1/completions",
                "tokenizer": str(folder),
                "max_length": CONTEXT,
            }
            # Several requests at once, one text in each; log-likelihoods also go in batches.
            add(record, "local-completions", text_tasks, model_args=texts, batch_size=BATCH)
            add(record, "local-completions", chat_tasks, model_args=texts, **chat)
            messages = named | {"base_url": f"{url}/v1/chat/completions"}
            add(record, "local-chat-completions", chat_tasks, model_args=messages, **chat)
        import featherweight.interchange.hf  # noqa: F401 - registers packed folders

        # transformers loads packed folders in bfloat16 otherwise, which is slow on many processors.
        options = {"model_args": {"pretrained": str(folder), "dtype": "float32"}, "device": "cpu"}
        # Each pass decodes all weights, so that many texts at once cost little more than one.
        add(record, "hf", text_tasks, batch_size=4 * BATCH, **options)
        add(record, "hf", chat_tasks, batch_size=chat_items, **chat, **options)
    check(record)
    return record


def check(record: Record) -> None:
    """The judges agree, within the standard errors of the harness."""
    pairs = [
        ("local-completions", task, metric)
        for task, metrics in METRICS.items()
        for metric in metrics
    ]
    for judge_name, task, metric in [*pairs, ("local-chat-completions", "gsm8k", "exact_match")]:
        rows = [
            record.find(judge=name, task=task, metric=metric) or {} for name in ("hf", judge_name)
        ]
        difference = abs(rows[0]["value"] - rows[1]["value"])
        record.check(
            f"{metric} of {task}: {judge_name} against hf, in standard errors",
            difference / max(rows[0]["standard_error"], 1e-9),
            at_most=1,
        )


if __name__ == "__main__":
    flags = parser(__doc__, light_coder.PRESETS)
    flags.add_argument("--data", type=Path, required=True, help="the folder of the tasks' files")
    flags.add_argument("--folder", type=Path, help="a packed folder; without one, it is made first")
    flags.add_argument("--items", type=int, help="of ARC-easy and LAMBADA")
    flags.add_argument("--chat-items", type=int, help="of GSM8K")
    main(run, flags)
