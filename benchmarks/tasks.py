"""Are our scores of tasks those of lm-evaluation-harness, example by example?

    python benchmarks/tasks.py --data FOLDER --json tasks.json      # with featherweight[eval]

A model (`--model`, else SmolLM2-135M-Instruct) answers the first `--items` examples of ARC easy and
challenge, LAMBADA and GSM8K, of which `--shots` solved problems stand before each question: once
through `fw evaluate --tasks` (preset `native`: on the native engine; `reference`: in PyTorch), and
once through the harness's own `hf` model in float32, with its definitions of these tasks over the
same files. `--data` holds arc_easy, arc_challenge, lambada_openai, gsm8k_test and gsm8k_train as
.jsonl or .jsonl.gz, also in subfolders. A check for each task: at most one example in a hundred is
judged differently. `differing` names them; `same_answers` is the share of generated answers that
are the same text. Both keep every answer, and continue when killed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import harness
from common import OtherProcesses, Record, main, new_record, parser, work_folder

from featherweight.data.tasks import BY_NAME, find_tasks
from featherweight.interchange.source import Source
from featherweight.workflows.evaluate_tasks import evaluate_tasks

MODEL, ITEMS, QUICK_ITEMS, SHOTS, BATCH = "SmolLM2-135M-Instruct", 100, 5, 5, 16
TASKS = ("arc_easy", "arc_challenge", "lambada", "gsm8k")
GSM8K_METRIC = harness._metric("exact_match") | {
    "ignore_case": True,
    "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"],
}


def definition(task: str, files: Mapping[str, Path], shots: int) -> dict[str, Any]:
    """A task as the harness defines it, over local files."""
    if task != "gsm8k":
        (base,) = harness.tasks(Path(), 1, ("lambada" if task == "lambada" else "arc_easy",))
    else:
        (base,) = harness.tasks(Path(), 1, (task,))
        base |= {
            "fewshot_split": "train",
            "fewshot_config": {"sampler": "first_n"},
            "num_fewshot": shots,
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {
                "until": ["Question:", "</s>", "<|im_end|>"],
                "do_sample": False,
                "max_gen_toks": 256,
            },
            "filter_list": [_last_number()],
            "metric_list": [GSM8K_METRIC],
        }
    return {
        **base,
        "task": f"local_{task}",
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}},
    }


def _last_number() -> dict[str, Any]:
    regex = {
        "function": "regex",
        "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)",
        "group_select": -1,
    }
    return {"name": "flexible-extract", "filter": [regex, {"function": "take_first"}]}


def unpack(task: str, data: Path, items: int, work: Path) -> dict[str, Path]:
    """The first examples of the task's files, in `work`, by split."""
    (found,) = find_tasks(task, BY_NAME, data)
    files = {}
    for split, path in found.files.items():
        if path is not None:
            opened = gzip.open if path.suffix == ".gz" else open
            with opened(path, "rt", encoding="utf-8") as lines:
                files[split] = work / f"{task}-{split}.jsonl"
                files[split].write_text("".join(islice(lines, items)), encoding="utf-8")
    return files


def our_rows(arguments: argparse.Namespace, task: str, items: int, work: Path) -> list[Any]:
    """The scores of each example, by metric, from `fw evaluate --tasks`."""
    named = f"gsm8k(shots={arguments.shots})" if task == "gsm8k" else task
    _, folder = evaluate_tasks(
        arguments.model,
        named,
        items=items,
        task_data=arguments.data,
        chat=False,
        runtime=arguments.preset,
        out=work / f"ours-{task}",
    )
    lines = (folder / "items" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def their_rows(arguments: argparse.Namespace, task: str, items: int, work: Path) -> list[Any]:
    """What the harness kept of each example, in order."""
    import lm_eval

    files = unpack(task, arguments.data, items, work)
    judgement = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(Source.find(arguments.model).path), "dtype": "float32"},
        tasks=[definition(task, files, arguments.shots)],
        device="cpu",
        batch_size=BATCH,
        use_cache=str(work / f"theirs-{task}"),
        bootstrap_iters=0,
        verbosity="WARNING",
    )
    assert judgement is not None
    return sorted(judgement["samples"][f"local_{task}"], key=lambda sample: sample["doc_id"])


def compared(ours: Sequence[Any], theirs: Sequence[Any]) -> Iterator[tuple[str, list[int], Any]]:
    """For each metric: its name, the examples that are judged differently, and both means."""
    for metric in ours[0]["scores"]:
        key = next((k for k in (metric, "exact_match") if k in theirs[0]), None)
        if key is not None:
            pairs = [
                (row["scores"][metric], float(sample[key]))
                for row, sample in zip(ours, theirs, strict=True)
            ]
            differing = [index for index, (a, b) in enumerate(pairs) if a != b]
            yield metric, differing, [sum(side) / len(pairs) for side in zip(*pairs, strict=True)]


def same_answers(ours: Sequence[Any], theirs: Sequence[Any]) -> float | None:
    """The share of generated answers that are the same text; None for tasks without."""
    if "answer" not in ours[0]:
        return None
    pairs = zip(ours, theirs, strict=True)
    return sum(row["answer"] == sample["resps"][0][0] for row, sample in pairs) / len(ours)


def run(arguments: argparse.Namespace) -> Record:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    items = arguments.items or (QUICK_ITEMS if arguments.quick else ITEMS)
    record = new_record(
        "tasks: our scores against lm-evaluation-harness",
        arguments,
        num_seeds=1,
        key=("task", "metric"),
        settings={"model": arguments.model, "items": items, "shots": arguments.shots},
    )
    record.resume()
    with work_folder(arguments) as work:
        work.mkdir(parents=True, exist_ok=True)
        os.environ["HF_DATASETS_CACHE"] = str((work / "datasets").absolute())
        for task in arguments.tasks:
            if all(row["task"] != task for row in record.rows):
                add(record, arguments, task, items, work.absolute())
    for row in record.rows:
        record.check(
            f"{row['metric']} of {row['task']}: share of examples judged differently",
            len(row["differing"]) / items,
            at_most=0.01,
        )
    return record


def add(record: Record, arguments: argparse.Namespace, task: str, items: int, work: Path) -> None:
    """A row for each metric of `task`."""
    others, start = OtherProcesses(), time.monotonic()
    ours = our_rows(arguments, task, items, work)
    middle = time.monotonic()
    theirs = their_rows(arguments, task, items, work)
    end = time.monotonic()
    for metric, differing, (our_mean, their_mean) in compared(ours, theirs):
        record.add(
            task=task,
            metric=metric,
            ours=our_mean,
            harness=their_mean,
            num_differing=len(differing),
            same_answers=same_answers(ours, theirs),
            differing=differing,
            our_seconds=middle - start,
            harness_seconds=end - middle,
            busy_cores=others.busy_cores(),
        )


if __name__ == "__main__":
    flags = parser(__doc__, ("native", "reference"))
    flags.add_argument("--data", type=Path, required=True, help="the folder of the tasks' files")
    flags.add_argument("--model", default=MODEL, help="a known name or a folder")
    flags.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    flags.add_argument("--items", type=int, help="of each task")
    flags.add_argument("--shots", type=int, default=SHOTS, help="solved problems of GSM8K")
    main(run, flags)
