"""The command `evaluate`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from . import bounds as result_bounds
from . import free_running as free_options
from . import tasks as task_options
from .options import FailIf, Json, Model
from .progress import progress

Bos = Annotated[
    str,
    typer.Option(
        metavar="auto|yes|no",
        help="Whether each window starts with the BOS token; auto: where the tokenizer itself puts "
        "one before every text.",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        help="The original, or a folder of its answers (fw teach), to measure the KL from it.",
        show_default=False,
    ),
]
TextName = Annotated[
    str | None,
    typer.Option(
        help="A text file, or the name of a text that comes with featherweight.",
        show_default=False,
    ),
]
Windows = Annotated[int, typer.Option(help="How many windows of the text.", min=1)]
Length = Annotated[int, typer.Option(help="Tokens in a window.", min=2)]
EvaluationRuntime = Annotated[
    str | None,
    typer.Option(
        metavar="native|reference|reference-int8",
        help="Measure what this engine computes instead of the plain forward of PyTorch. Tasks run "
        "on the native engine when it can run the model.",
        show_default=False,
    ),
]
Record = Annotated[
    bool,
    typer.Option(
        "--record", help="Write the figures into MODEL's page too; needs --against or --tasks."
    ),
]


def evaluate(
    model: Model,
    against: Against = None,
    text: TextName = None,
    windows: Windows = 16,
    length: Length = 1024,
    bos: Bos = "auto",
    runtime: EvaluationRuntime = None,
    record: Record = False,
    fail_if: FailIf = None,
    json_: Json = False,
    free_running: free_options.FreeRunning = False,
    prompts: free_options.Prompts = None,
    answer_tokens: free_options.AnswerTokens = None,
    tasks: task_options.Tasks = None,
    harness: task_options.Harness = None,
    task_data: task_options.TaskData = None,
    items: task_options.Items = None,
    with_chat: task_options.TaskChat = None,
    out: task_options.TaskFolder = None,
    from_start: task_options.FreshTasks = False,
    overwrite: task_options.OverwriteTasks = False,
) -> None:
    """Measure perplexity, and with --against the KL from the original and how often both agree;
    with --tasks, how well the model answers; with --free-running, whether it can still talk.
    """
    bounds = result_bounds.parse(fail_if or [])
    task_settings: dict[str, Any] = {
        "task_data": task_data,
        "items": items,
        "chat": with_chat,
        "out": out,
        "fresh": from_start,
        "overwrite": overwrite,
    }
    free_settings = {"prompts": prompts, "answer_tokens": answer_tokens}
    source = {"against": against, "record": record}
    if free_running:
        others = {"tasks": tasks, "harness": harness, "text": text, "runtime": runtime}
        task_options.refuse(others | task_settings, "does not go with --free-running")
        results = free_options.evaluate_freely(model, json_, source | free_settings)
    elif tasks is not None or harness is not None:
        text_settings = {"against": against, "text": text, "fail-if": fail_if, **free_settings}
        engine_settings = {"runtime": runtime or "auto", "record": record}
        task_options.refuse(text_settings, "does not go with tasks; evaluate them apart from it")
        task_options.evaluate_tasks(model, tasks, harness, json_, task_settings | engine_settings)
        return
    else:
        task_options.refuse(free_settings, "belongs to --free-running")
        task_options.refuse(task_settings, "belongs to --tasks and --harness; name the tasks")
        window_settings = {"text": text, "windows": windows, "length": length, "bos": bos}
        results = _evaluate_text(model, json_, source | window_settings | {"runtime": runtime})
    result_bounds.check(bounds, results)


def _evaluate_text(model: str, as_json: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure `model` on a text, print the figures and return them; `settings` are those of the
    workflow.
    """
    from ..workflows.evaluate_folder import evaluate_folder

    with progress() as listener:
        results = evaluate_folder(model, listener=listener, **settings)
    if as_json:
        typer.echo(json.dumps(results, indent=1))
    else:
        from .tables import results_table, show

        show(results_table(results))
    return results
