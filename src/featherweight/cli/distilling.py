"""The command `distill`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .progress import progress
from .teaching import kind_of

LEARNING, TEXT, JUDGING = "Learning", "Text", "Judging"

Method = Annotated[
    str,
    typer.Option(
        metavar="offline|on-policy|policy-gradient|sequence",
        help="From answers on disk; on the student's own text, compared with the teacher's "
        "distributions or paid by its log-probabilities; from texts that the teacher writes.",
        rich_help_panel=LEARNING,
    ),
]
Steps = Annotated[int, typer.Option(help="Of the optimizer.", min=1, rich_help_panel=LEARNING)]
Batch = Annotated[
    int, typer.Option(help="Windows or prompts of a micro-batch.", min=1, rich_help_panel=LEARNING)
]
Accumulate = Annotated[
    int, typer.Option(help="Micro-batches of a step.", min=1, rich_help_panel=LEARNING)
]
Rate = Annotated[
    float, typer.Option("--lr", help="Largest learning rate.", rich_help_panel=LEARNING)
]
Warmup = Annotated[int, typer.Option(help="Steps.", min=0, rich_help_panel=LEARNING)]
OptimizerName = Annotated[
    str, typer.Option("--optimizer", metavar="adamw|muon", rich_help_panel=LEARNING)
]
Divergence = Annotated[
    str | None,
    typer.Option(
        metavar="forward|reverse|skew|skew-reverse|jensen-shannon|total-variation",
        help="forward for the text of others, reverse for the student's own.",
        rich_help_panel=LEARNING,
        show_default=False,
    ),
]
CrossEntropyWeight = Annotated[
    float,
    typer.Option(
        "--cross-entropy", help="Weight of the text itself.", min=0.0, rich_help_panel=LEARNING
    ),
]
Correct = Annotated[
    int,
    typer.Option(
        help="Steps in which the teacher learns the text first.", min=0, rich_help_panel=LEARNING
    ),
]
Share = Annotated[
    float,
    typer.Option(
        help="Of the texts that the student writes on-policy; the teacher writes the others.",
        rich_help_panel=LEARNING,
    ),
]
SeedOption = Annotated[int, typer.Option(help="Of everything random.", rich_help_panel=LEARNING)]
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
    typer.Option(help="Keep so many drawn tokens.", rich_help_panel=TEXT, show_default=False),
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
        metavar="TEXT", help="Held-out text, a file or a shipped one.", rich_help_panel=JUDGING
    ),
]
JudgeWindows = Annotated[int, typer.Option(help="Of it.", min=1, rich_help_panel=JUDGING)]
JudgeLength = Annotated[int, typer.Option(min=2, help="Tokens.", rich_help_panel=JUDGING)]
TaskNames = Annotated[
    str | None,
    typer.Option(
        metavar="A,B=FILE,...",
        help="Tasks before and after, as in evaluate.",
        rich_help_panel=JUDGING,
        show_default=False,
    ),
]
TaskItems = Annotated[
    int | None,
    typer.Option(help="First examples of each task.", rich_help_panel=JUDGING, show_default=False),
]
TaskFiles = Annotated[
    Path | None,
    typer.Option(
        "--task-data", help="Folder of their files.", rich_help_panel=JUDGING, show_default=False
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
    from ..distillation import Recipe
    from ..workflows.distill_folder import distill_folder
    from ..workflows.distill_plan import DistillSettings

    recipe = Recipe(
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        lr=lr,
        warmup=warmup,
        optimizer=optimizer,
        divergence=divergence,
        cross_entropy=cross_entropy,
        seed=seed,
    )
    settings = DistillSettings(
        method=method,
        recipe=recipe,
        texts=tuple(texts or ()),
        windows=windows,
        length=length,
        kind=kind_of(top_k, draws, full, None),
        correct_steps=correct,
        prompts=prompts,
        num_prompts=num_prompts,
        answer_tokens=answer_tokens,
        share=share,
        judge=judge,
        judge_windows=judge_windows,
        judge_length=judge_length,
        tasks=tasks,
        items=items,
        task_data=task_data,
    )
    with progress() as listener:
        results = distill_folder(
            teacher,
            student,
            out,
            settings,
            fresh=start_over,
            overwrite=overwrite,
            listener=listener,
        )
    typer.echo(json.dumps(results, indent=1) if json_ else summary(results, out))


def summary(results: Mapping[str, Any], out: Path) -> str:
    """What came of it, in two lines."""
    from ..distillation.page import verdict

    return f"{verdict(results)}\n{out}: the student; {out / 'report.html'}: how it learned"
