"""The command `distill`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .progress import progress
from .teaching import kind_of

if TYPE_CHECKING:
    from ..workflows.distill_plan import DistillSettings

HOW_TO_LEARN, TEXT, JUDGE_PANEL = "Learning", "Text", "Judging"
# Options that go on by their names: to the recipe, and to the settings of the workflow.
RECIPE = (
    *("steps", "batch", "accumulate", "lr", "warmup", "optimizer", "divergence"),
    *("cross_entropy", "seed"),
)
SETTINGS = (
    *("method", "windows", "length", "prompts", "num_prompts", "answer_tokens", "share"),
    *("judge", "judge_windows", "judge_length", "tasks", "items", "task_data"),
)

Method = Annotated[
    str,
    typer.Option(
        metavar="offline|on-policy|policy-gradient|sequence",
        help="From answers on disk; on the student's own text, compared with the teacher's "
        "distributions or paid by its log-probabilities; from texts that the teacher writes.",
        rich_help_panel=HOW_TO_LEARN,
    ),
]
Steps = Annotated[int, typer.Option(help="Of the optimizer.", min=1, rich_help_panel=HOW_TO_LEARN)]
Batch = Annotated[
    int,
    typer.Option(help="Windows or prompts of a micro-batch.", min=1, rich_help_panel=HOW_TO_LEARN),
]
Accumulate = Annotated[
    int, typer.Option(help="Micro-batches of a step.", min=1, rich_help_panel=HOW_TO_LEARN)
]
Rate = Annotated[
    float, typer.Option("--lr", help="Largest learning rate.", rich_help_panel=HOW_TO_LEARN)
]
Warmup = Annotated[int, typer.Option(help="Steps.", min=0, rich_help_panel=HOW_TO_LEARN)]
OptimizerName = Annotated[
    str, typer.Option("--optimizer", metavar="adamw|muon", rich_help_panel=HOW_TO_LEARN)
]
Divergence = Annotated[
    str | None,
    typer.Option(
        metavar="forward|reverse|skew|skew-reverse|jensen-shannon|total-variation",
        help="forward for the text of others, reverse for the student's own.",
        rich_help_panel=HOW_TO_LEARN,
        show_default=False,
    ),
]
CrossEntropyWeight = Annotated[
    float,
    typer.Option(
        "--cross-entropy", help="Weight of the text itself.", min=0.0, rich_help_panel=HOW_TO_LEARN
    ),
]
Correct = Annotated[
    int,
    typer.Option(
        help="Steps in which the teacher learns the text first.",
        min=0,
        rich_help_panel=HOW_TO_LEARN,
    ),
]
Share = Annotated[
    float,
    typer.Option(
        help="Of the texts that the student writes on-policy; the teacher writes the others.",
        rich_help_panel=HOW_TO_LEARN,
    ),
]
SeedOption = Annotated[
    int, typer.Option(help="Of everything random.", rich_help_panel=HOW_TO_LEARN)
]
Texts = Annotated[
    list[Path] | None,
    typer.Option(
        "--text",
        help="Learn from this file, text or JSON lines; may be given again. Without it from the "
        "texts that come with featherweight.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
Windows = Annotated[int, typer.Option(help="Of the text.", min=1, rich_help_panel=TEXT)]
Length = Annotated[int, typer.Option(help="Tokens in a window.", min=4, rich_help_panel=TEXT)]
AnswerKind = Annotated[
    int | None,
    typer.Option(
        help="Keep so many tokens of each answer of the teacher, and the mass of the others (64).",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
FullAnswers = Annotated[
    bool, typer.Option("--full", help="Keep all its logits.", rich_help_panel=TEXT)
]
DrawnAnswers = Annotated[
    int | None,
    typer.Option(
        help="Keep so many drawn tokens; with --top-k, drawn from the others (128).",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="JSON lines with prompt or messages, for texts that are written.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
NumPrompts = Annotated[int, typer.Option(help="How many.", min=1, rich_help_panel=TEXT)]
AnswerTokens = Annotated[
    int, typer.Option(help="Longest text that is written.", min=1, rich_help_panel=TEXT)
]
Judge = Annotated[
    str,
    typer.Option(
        metavar="TEXT", help="Held-out text, a file or a shipped one.", rich_help_panel=JUDGE_PANEL
    ),
]
JudgeWindows = Annotated[int, typer.Option(help="Of it.", min=1, rich_help_panel=JUDGE_PANEL)]
JudgeLength = Annotated[int, typer.Option(min=2, help="Tokens.", rich_help_panel=JUDGE_PANEL)]
TaskNames = Annotated[
    str | None,
    typer.Option(
        metavar="A,B=FILE,...",
        help="Tasks before and after, as in evaluate.",
        rich_help_panel=JUDGE_PANEL,
        show_default=False,
    ),
]
TaskItems = Annotated[
    int | None,
    typer.Option(
        help="First examples of each task.", rich_help_panel=JUDGE_PANEL, show_default=False
    ),
]
TaskFiles = Annotated[
    Path | None,
    typer.Option(
        "--task-data",
        help="Folder of their files.",
        rich_help_panel=JUDGE_PANEL,
        show_default=False,
    ),
]


def distill(
    teacher: Annotated[str, typer.Argument(help="A model, as in the other commands.")],
    student: Annotated[
        str,
        typer.Argument(
            help="every:2 (every second block of the teacher), blocks:0,4,8, channels:FILE, "
            "shape.yaml (a model from scratch), or a model."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the student.")],
    method: Method = "offline",
    steps: Steps = 500,
    batch: Batch = 4,
    accumulate: Accumulate = 1,
    lr: Rate = 3e-4,
    warmup: Warmup = 20,
    optimizer: OptimizerName = "adamw",
    divergence: Divergence = None,
    cross_entropy: CrossEntropyWeight = 0.0,
    correct: Correct = 0,
    share: Share = 1.0,
    seed: SeedOption = 0,
    texts: Texts = None,
    windows: Windows = 512,
    length: Length = 512,
    top_k: AnswerKind = None,
    full: FullAnswers = False,
    draws: DrawnAnswers = None,
    prompts: Prompts = None,
    num_prompts: NumPrompts = 512,
    answer_tokens: AnswerTokens = 64,
    judge: Judge = "wikitext2_test",
    judge_windows: JudgeWindows = 8,
    judge_length: JudgeLength = 512,
    tasks: TaskNames = None,
    items: TaskItems = None,
    task_data: TaskFiles = None,
    start_over: Annotated[bool, typer.Option("--fresh", help="Forget an unfinished run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Teach STUDENT to answer like TEACHER.

    Killed or interrupted, the same command continues where it stopped.
    """
    options = dict(locals())
    from ..workflows.distill_folder import distill_folder

    with progress() as listener:
        results = distill_folder(
            teacher,
            student,
            out,
            _settings(options),
            fresh=start_over,
            overwrite=overwrite,
            listener=listener,
        )
    typer.echo(json.dumps(results, indent=1) if json_ else summary(results, out))


def _settings(options: Mapping[str, Any]) -> DistillSettings:
    """The options of the command, by the names of its arguments, as settings of the workflow."""
    from ..distillation import Recipe
    from ..workflows.distill_plan import DistillSettings

    recipe = Recipe(**{name: options[name] for name in RECIPE})
    kept = (options["top_k"], options["draws"], options["full"])
    settings = DistillSettings(
        recipe=recipe,
        texts=tuple(options["texts"] or ()),
        correct_steps=options["correct"],
        **{name: options[name] for name in SETTINGS},
    )
    # Without these options the workflow chooses what is kept.
    return settings if kept == (None, None, False) else replace(settings, kind=kind_of(*kept, None))


def summary(results: Mapping[str, Any], out: Path) -> str:
    """What came of it, in two lines."""
    from ..distillation.page import verdict

    return f"{verdict(results)}\n{out}: the student; {out / 'report.html'}: how it learned"
