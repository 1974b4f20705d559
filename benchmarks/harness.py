"""Does lm-evaluation-harness judge a model the same through transformers and through `fw serve`?

    python benchmarks/harness.py --data FOLDER          # needs the extra featherweight[eval]

A light Qwen2.5-Coder-0.5B-Instruct (`--folder`; else 4 bits, made first) answers the harness's own
`hf` model (on the packed folder, PyTorch) and its `local-completions` (against `fw serve`: batched,
log-likelihoods through echo) on ARC-easy and LAMBADA, and `local-chat-completions` on GSM8K. The
tasks are dicts over local JSON lines, so no hub is asked. `--data` holds zeroshot/arc_easy.jsonl.gz
(query, choices, gold), zeroshot/lambada_openai.jsonl.gz (context, continuation) and
math/gsm8k_test.jsonl.gz (question, answer).

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
    return {
        name.split("_", 1)[1].rsplit("_", 1)[0]: row for name, row in results["results"].items()
    }


def add_rows(record: Record, judge_name: str, results: dict[str, Any], seconds: float) -> None:
    """A row for each metric of each task."""
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


def run(arguments: argparse.Namespace) -> Record:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    record = new_record(
        "harness: lm-evaluation-harness on transformers and on the server",
        arguments,
        num_seeds=1,
        key=("judge", "task", "metric"),
    )
    folder = arguments.folder or light_coder.light(arguments.preset, arguments.quick)
    items = arguments.items or (QUICK_ITEMS if arguments.quick else ITEMS)
    chat_items = arguments.chat_items or (QUICK_CHAT_ITEMS if arguments.quick else CHAT_ITEMS)
    record.facts |= {"folder": folder.name, "items": items, "chat_items": chat_items}
    with tempfile.TemporaryDirectory() as work_name:
        work = Path(work_name)
        os.environ["HF_DATASETS_CACHE"] = str(work / "datasets")
        write_items(
            arguments.data, work, {"arc_easy": items, "lambada": items, "gsm8k": chat_items}
        )
        text_tasks = tasks(work, items, ("arc_easy", "lambada"))
        server_options = ["--context", str(CONTEXT), "--slots", str(BATCH)]
        with serve(folder, *server_options) as (_, url):
            start = time.monotonic()
            shared: dict[str, Any] = {"model": folder.name, "tokenizer": str(folder)}
            completions = shared | {"base_url": f"{url}/v1/completions", "max_length": CONTEXT}
            results = judge(
                "local-completions", text_tasks, model_args=completions, batch_size=BATCH
            )
            add_rows(record, "local-completions", results, time.monotonic() - start)
            start = time.monotonic()
            chat = {"model": folder.name, "base_url": f"{url}/v1/chat/completions"}
            results = judge(
                "local-chat-completions",
                tasks(work, chat_items, ("gsm8k",)),
                model_args=chat | {"num_concurrent": BATCH},
                apply_chat_template=True,
            )
            add_rows(record, "local-chat-completions", results, time.monotonic() - start)
        import featherweight.interchange.hf  # noqa: F401 - registers packed folders

        start = time.monotonic()
        # transformers loads packed folders in bfloat16 otherwise, which is slow on many processors.
        hf = {"pretrained": str(folder), "dtype": "float32"}
        results = judge("hf", text_tasks, model_args=hf, batch_size=BATCH, device="cpu")
        add_rows(record, "hf", results, time.monotonic() - start)
    check(record)
    return record


def check(record: Record) -> None:
    """Both judges agree, within the standard errors of the harness."""
    for task in ("arc_easy", "lambada"):
        for metric in METRICS[task]:
            rows = [
                record.find(judge=judge_name, task=task, metric=metric)
                for judge_name in ("hf", "local-completions")
            ]
            assert rows[0] is not None
            assert rows[1] is not None
            difference = abs(rows[0]["value"] - rows[1]["value"])
            record.check(
                f"{metric} of {task}: local-completions against hf, in standard errors",
                difference / max(rows[0]["standard_error"], 1e-9),
                at_most=1,
            )
    row = record.find(judge="local-chat-completions", task="gsm8k", metric="exact_match")
    assert row is not None
    record.check("local-chat-completions on GSM8K gave a number", row["value"], at_least=0)


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.add_argument("--data", type=Path, required=True, help="the folder of the tasks' files")
    flags.add_argument("--folder", type=Path, help="a packed folder; without one, it is made first")
    flags.add_argument("--items", type=int, help="of ARC-easy and LAMBADA")
    flags.add_argument("--chat-items", type=int, help="of GSM8K")
    main(run, flags)
