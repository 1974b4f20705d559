"""Options that several commands share, with their names and help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = (
    "A known name (SmolLM2-135M-Instruct), a model folder, a .gguf file, or a name on the hub."
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
OptionalModel = Annotated[
    str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
RUNTIME_HELP = (
    "native (C++, no PyTorch), reference (PyTorch), or auto: native when it can run the model."
)
Runtime = Annotated[str, typer.Option(metavar="auto|native|reference", help=RUNTIME_HELP)]
Temperature = Annotated[float, typer.Option(help="0 always takes the most likely token.")]
TopK = Annotated[int, typer.Option(help="Sample among this many of the likeliest tokens; 0: all.")]
TopP = Annotated[float, typer.Option(help="Sample among the likeliest tokens with this much mass.")]
MinP = Annotated[
    float, typer.Option(help="Only tokens with this share of the likeliest one's probability.")
]
RepetitionPenalty = Annotated[
    float, typer.Option(help="Above 1 makes tokens that occurred less likely.")
]
Lookup = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Guess N tokens at a time by copying from the text; the output is the same.",
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder that remembers prompts, so that the same beginning is not computed again."
    ),
]
Prompt = Annotated[
    str,
    typer.Argument(
        metavar="PROMPT", help="The text, @FILE to read it from a file, - to read it from stdin."
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="Longest answer; 256, or what the context leaves.", show_default=False),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="End before this text; may be given again.", show_default=False),
]
FreeSeed = Annotated[
    int | None,
    typer.Option(
        help="The same seed gives the same text; none: another each time.", show_default=False
    ),
]
Logprobs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Also each token's log-probability and the N likeliest.",
        show_default=False,
    ),
]
JsonSchema = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Answer with JSON after this schema.", show_default=False),
]
Chat = Annotated[
    bool | None,
    typer.Option(
        "--chat/--raw",
        help="Through the chat template (the default when there is one), or as it is.",
    ),
]
JsonAtTheEnd = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        help='Exit with code 4 when this holds of the result, e.g. "kl>0.05".', show_default=False
    ),
]
