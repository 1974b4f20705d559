"""The command `shorten`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Model
from .progress import progress

if TYPE_CHECKING:
    from ..workflows.shorten_plan import ShortenSettings

TRAINING, JUDGE, START = "Training", "Judging", "Warm start"
RECIPE = ("steps", "prompts", "group", "accumulate", "lr", "temperature", "max_tokens", "seed")
SETTINGS = (
    *(
        "task",
        "task_data",
        "chat",
        "reward",
        "strength",
        "floor",
        "questions",
        "judge_questions",
        "points",
    ),
    *("tolerance", "warm_start", "warm_lr", "sampler", "device"),
)


TaskName = Annotated[
    str,
    typer.Option(
        metavar="TASK[=FILE]", help="What it is trained on: gsm8k, arithmetic or op_chain."
    ),
]
TaskFiles = Annotated[
    Path | None,
    typer.Option("--task-data", help="Folder of the task's files.", show_default=False),
]
Chat = Annotated[
    bool | None,
    typer.Option("--chat/--raw", help="Prompts through the chat template.", show_default=False),
]
Reward = Annotated[
    str,
    typer.Option(
        help="short_arc, or a published rule such as kimi(weight=0.4), or none.",
        rich_help_panel=TRAINING,
    ),
]
Strength = Annotated[
    float, typer.Option(help="The largest pressure of short_arc.", rich_help_panel=TRAINING)
]
Floor = Annotated[
    float, typer.Option(help="So many tokens are short enough.", rich_help_panel=TRAINING)
]
Steps = Annotated[int, typer.Option(help="Of the optimizer.", min=1, rich_help_panel=TRAINING)]
Prompts = Annotated[
    int, typer.Option(help="Questions of a micro-batch.", min=1, rich_help_panel=TRAINING)
]
Group = Annotated[
    int, typer.Option(help="Answers to each question.", min=2, rich_help_panel=TRAINING)
]
Accumulate = Annotated[
    int, typer.Option(help="Micro-batches of a step.", min=1, rich_help_panel=TRAINING)
]
Rate = Annotated[float, typer.Option(help="Learning rate.", rich_help_panel=TRAINING)]
Temperature = Annotated[float, typer.Option(help="Of the sampling.", rich_help_panel=TRAINING)]
MaxTokens = Annotated[int, typer.Option(help="Longest answer.", min=1, rich_help_panel=TRAINING)]
Questions = Annotated[int, typer.Option(help="Of the training.", min=1, rich_help_panel=TRAINING)]
SamplerName = Annotated[
    str,
    typer.Option(
        metavar="local|native",
        help="Who writes: the policy itself, or its weights in 8 bits on the native engine.",
        rich_help_panel=TRAINING,
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", rich_help_panel=TRAINING)]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="cpu|cuda",
        help="A GPU when there is one.",
        rich_help_panel=TRAINING,
        show_default=False,
    ),
]
WarmStart = Annotated[
    int, typer.Option(help="Steps of learning traces first.", min=0, rich_help_panel=START)
]
WarmRate = Annotated[float, typer.Option(help="Of these.", rich_help_panel=START)]
JudgeQuestions = Annotated[
    int, typer.Option(help="Held-out questions.", min=1, rich_help_panel=JUDGE)
]
Points = Annotated[int, typer.Option(help="Evaluations on the way.", min=1, rich_help_panel=JUDGE)]
Tolerance = Annotated[
    float,
    typer.Option(
        help="Of accuracy: below twice as much three times in a row, the training stops.",
        rich_help_panel=JUDGE,
    ),
]


def shorten(
    model: Model,
    task: TaskName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the model.")],
    task_data: TaskFiles = None,
    chat: Chat = None,
    reward: Reward = "short_arc",
    strength: Strength = 1.0,
    floor: Floor = 16.0,
    steps: Steps = 100,
    prompts: Prompts = 8,
    group: Group = 8,
    accumulate: Accumulate = 1,
    lr: Rate = 1e-6,
    temperature: Temperature = 1.0,
    max_tokens: MaxTokens = 256,
    questions: Questions = 1000,
    sampler: SamplerName = "local",
    seed: SeedOption = 0,
    device: Device = None,
    warm_start: WarmStart = 0,
    warm_lr: WarmRate = 1e-4,
    judge_questions: JudgeQuestions = 200,
    points: Points = 5,
    tolerance: Tolerance = 0.02,
    start_over: Annotated[bool, typer.Option("--fresh", help="Forget an unfinished run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train MODEL to think only as long as a question needs.

    Killed or interrupted, the same command continues where it stopped.
    """
    options = dict(locals())
    from ..workflows.shorten_folder import shorten_folder

    with progress() as listener:
        results = shorten_folder(
            model,
            out,
            _settings(options),
            fresh=start_over,
            overwrite=overwrite,
            listener=listener,
        )
    typer.echo(json.dumps(results, indent=1) if json_ else summary(results, out))


def _settings(options: Mapping[str, Any]) -> ShortenSettings:
    """The options of the command, by the names of its arguments, as settings of the workflow."""
    from ..reasoning.loop import Recipe
    from ..workflows.shorten_plan import ShortenSettings

    save_every = max(1, min(20, options["steps"] // 10))
    recipe = Recipe(save_every=save_every, **{name: options[name] for name in RECIPE})
    return ShortenSettings(recipe=recipe, **{name: options[name] for name in SETTINGS})


def summary(results: Mapping[str, Any], out: Path) -> str:
    """What came of it, and where it is."""
    from ..reasoning.page import outcome

    return f"{outcome(results)}\nmodel: {out}\nreport: {out / 'report.html'}"
