"""The commands: each reads its options, calls the workflow of the same name, and prints the
result.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..base.errors import UsageError
from . import bounds as result_bounds
from .benching import bench
from .comparing import compare
from .distilling import distill
from .evaluation import evaluate
from .generation import chat, generate
from .options import FailIf, Json, OptionalModel
from .progress import progress
from .serving import serve
from .settings import gather
from .shortening import shorten
from .teaching import teach

app = typer.Typer(
    help="Make language models light - fewer bits - and prove what it cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Bits = Annotated[
    int | None,
    typer.Option(
        "--bits",
        "-b",
        help="Bits of a weight: 1-4 with the trellis, 2-8 with integers.",
        show_default=False,
    ),
]
HeadBits = Annotated[
    int | None,
    typer.Option(
        help="Bits of embedding and head, 2-8 (8, or the preset's): 4 is half of the bytes.",
        show_default=False,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="fast: minutes. balanced: better, the default. portable: integers other programs read."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="A recipe as YAML; its keys are these flags, and flags win.", show_default=False
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one key of the recipe, e.g. plan.lm_head=Int(bits=6).",
        show_default=False,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.", show_default=False)]
MaxRam = Annotated[
    float | None,
    typer.Option(
        "--max-ram",
        help="Refuse, before the work, a plan that needs more memory (GB).",
        show_default=False,
    ),
]
MaxDisk = Annotated[
    float | None,
    typer.Option(
        "--max-disk",
        help="Refuse, before the work, a plan that needs more disk (GB).",
        show_default=False,
    ),
]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)]
FreshRun = Annotated[
    bool, typer.Option("--fresh", help="Forget an unfinished run instead of resuming it.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT when it exists.")]
KeepCurvature = Annotated[
    Path | None,
    typer.Option(
        help="Folder that keeps collected curvature for other runs on this model.",
        show_default=False,
    ),
]
Evaluate = Annotated[
    bool | None,
    typer.Option(
        "--evaluate/--no-evaluate",
        help="Measure what it cost (the default).",
        show_default=False,
    ),
]
Ask = Annotated[
    str | None,
    typer.Option(help="Ask the original and the light model this at the end.", show_default=False),
]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed_version

        try:
            typer.echo(installed_version("featherweight"))
        except PackageNotFoundError:
            typer.echo("from source, not installed")
        raise typer.Exit


@app.command()
def quantize(
    out: OutFolder,
    model: OptionalModel = None,
    bits: Bits = None,
    head_bits: HeadBits = None,
    preset: Preset = None,
    config: Config = None,
    set_: Set = None,
    seed: Seed = None,
    max_ram: MaxRam = None,
    max_disk: MaxDisk = None,
    start_over: FreshRun = False,
    overwrite: Overwrite = False,
    keep_curvature: KeepCurvature = None,
    with_evaluation: Evaluate = None,
    ask: Ask = None,
    fail_if: FailIf = None,
    json_: Json = False,
) -> None:
    """Make MODEL light: quantize its weights into OUT, measure what it cost, and write the report.

    Killed or interrupted, the same command continues where it stopped.
    """
    bounds = result_bounds.parse(fail_if or [])
    settings = _recipe(
        model, bits, head_bits, preset, config, set_, seed, ask=ask, evaluate=with_evaluation
    )
    question, measure = settings.pop("ask", None), settings.pop("evaluate", True)
    from ..workflows.quantize_folder import quantize_folder

    with progress() as listener:
        folder = quantize_folder(
            str(settings["model"]),
            out,
            settings,
            fresh=start_over,
            overwrite=overwrite,
            max_ram_gb=max_ram,
            max_disk_gb=max_disk,
            keep_curvature=keep_curvature,
            evaluate=bool(measure),
            ask=question,
            listener=listener,
        )
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    if json_:
        typer.echo(json.dumps(results, indent=1))
    else:
        from .free_running import free_running_report
        from .tables import results_table, samples, show

        show(results_table(results), *free_running_report(results))
        show(f"report: {folder / 'report.html'}", *samples(results))
    result_bounds.check(bounds, results)


app.command()(evaluate)
app.command()(compare)
app.command()(teach)
app.command()(distill)
app.command()(shorten)


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="A folder that quantize or compare made.")],
) -> None:
    """Write report.html and the model card of OUT again, from its results.json."""
    from ..workflows.report_folder import report_folder

    for path in report_folder(out):
        typer.echo(str(path))


@app.command()
def export(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="PACKED", help="A folder that quantize or compare made.", show_default=False
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="gguf: one file for llama.cpp and its relatives. compressed-tensors: a folder for "
            "vLLM and transformers. hf: an ordinary transformers folder that anything loads, every "
            "weight decoded to the model's dtype, so as large as the original.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="What to make: a .gguf file, or a folder.", show_default=False
        ),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT when it exists.")
    ] = False,
    odd_bits: Annotated[
        bool,
        typer.Option(
            "--odd-bits",
            help="Allow 3, 5, 6 and 7 bits in compressed-tensors, which releases before 0.18 "
            "misread.",
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Write a packed model for other programs, code for code, and compare what they will read.

    Nothing is rounded again: a format that cannot hold the codes is refused, naming the nearest.
    """
    from ..workflows.export_folder import export_folder

    with progress() as listener:
        result = export_folder(
            folder, to, out, overwrite=overwrite, odd_bits=odd_bits, listener=listener
        )
    if json_:
        import dataclasses

        result_dict = {**dataclasses.asdict(result), "path": str(result.path)}
        typer.echo(json.dumps(result_dict, indent=1))
    else:
        types = ", ".join(f"{num} in {name}" for name, num in result.types.items())
        typer.echo(
            f"{result.path}: {result.file_bytes / 1e6:.1f} MB, "
            f"{result.num_tensors} tensors ({types})"
        )
        for note in result.notes:
            typer.echo(f"  {note}")
        typer.echo("  read again and compared: every number is the packed model's")


@app.command()
def plan(
    model: OptionalModel = None,
    bits: Bits = None,
    head_bits: HeadBits = None,
    preset: Preset = None,
    config: Config = None,
    set_: Set = None,
    seed: Seed = None,
    max_ram: MaxRam = None,
    max_disk: MaxDisk = None,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer.")] = False,
    json_: Json = False,
) -> None:
    """Say before the work what quantize would do to each layer, and its memory, disk and time."""
    settings = _recipe(model, bits, head_bits, preset, config, set_, seed)
    for key in ("ask", "evaluate"):
        settings.pop(key, None)
    from ..workflows.plan_folder import plan_folder

    with progress() as listener:
        plan_report = plan_folder(
            str(settings["model"]),
            settings,
            max_ram_gb=max_ram,
            max_disk_gb=max_disk,
            listener=listener,
        )
    if json_:
        import dataclasses

        typer.echo(json.dumps(dataclasses.asdict(plan_report), indent=1))
    else:
        from .tables import plan_lines, plan_table, show

        show(plan_table(plan_report, layers), *plan_lines(plan_report))


app.command()(generate)
app.command()(chat)
app.command()(serve)
app.command()(bench)


@app.command()
def doctor(json_: Json = False) -> None:
    """Check the installation: versions, native library, memory, disk, and short self-tests."""
    from ..workflows.doctor import doctor as examine

    checks = examine()
    if json_:
        import dataclasses

        typer.echo(json.dumps([dataclasses.asdict(check) for check in checks], indent=1))
    else:
        from .tables import checks_table, show

        show(checks_table(checks))
    if any(check.essential and not check.ok for check in checks):
        raise typer.Exit(2)


def _recipe(
    model: str | None,
    bits: int | None,
    head_bits: int | None,
    preset: str | None,
    config: Path | None,
    changes: list[str] | None,
    seed: int | None,
    **more_flags: str | bool | None,
) -> dict[str, Any]:
    """The settings that a user gave in the file and the flags. They include the model, which a
    recipe may name too.
    """
    flags = {
        "model": model,
        "bits": bits,
        "head_bits": head_bits,
        "preset": preset,
        "seed": seed,
        **more_flags,
    }
    settings = gather(config, flags, changes or [])
    if not settings.get("model"):
        raise UsageError("name a model to make light, or a --config that names one")
    return settings
