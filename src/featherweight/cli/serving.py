"""`serve`: a command in a file of its own, because it has many options."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import options
from .progress import progress

LOCAL = "127.0.0.1"


Compare = Annotated[
    str | None,
    typer.Option(
        metavar="ORIGINAL",
        help="Serve this as well; the page shows both side by side.",
        show_default=False,
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="FEATHERWEIGHT_API_KEY",
        help="What clients must send; better through the variable, which other users of the "
        "machine do not see.",
        show_default=False,
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        help="Tokens of prompt and answer together (2048, or what the model holds).", min=2
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="Longest answer that clients may ask for.", min=1, show_default=False),
]
Host = Annotated[
    str, typer.Option(help="Address to listen on; others than this machine need a key.")
]
CorsOrigins = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        help="A site whose pages may use the server, like https://example.org; repeat it for more.",
        show_default=False,
    ),
]


def serve(
    model: options.Model,
    compare: Compare = None,
    host: Host = LOCAL,
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    api_key: ApiKey = None,
    slots: Annotated[int, typer.Option(help="Answers that are made at once.", min=1)] = 8,
    context: Context = None,
    queue: Annotated[int, typer.Option(help="Requests that may wait for a slot.", min=0)] = 64,
    max_tokens: MaxTokens = None,
    seconds: Annotated[
        float, typer.Option(help="Longest time for one answer, waiting included.", min=0.1)
    ] = 600.0,
    cors_origin: CorsOrigins = None,
    runtime: options.Runtime = "auto",
) -> None:
    """Serve MODEL as OpenAI does (/v1/chat/completions, /v1/completions,
    /v1/responses), with a chat page.

    Ctrl-C stops the server.
    """
    from ..workflows.serve_folder import serve_folder

    def print_models(url: str, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            facts = entry["featherweight"]
            size = f"{facts['bits']:.2f} bits a weight, {facts['file_bytes'] / 1e6:.1f} MB"
            typer.echo(f"{entry['id']}: {size}; {facts['description']}")
        typer.echo(f"{url}  (the page; clients use {url}/v1)")

    with progress() as listener:
        serve_folder(
            model,
            compare=compare,
            host=host,
            port=port,
            api_key=api_key,
            slots=slots,
            context=context,
            queue=queue,
            max_tokens=max_tokens,
            seconds=seconds,
            cors_origins=cors_origin or (),
            runtime=runtime,
            on_ready=print_models,
            listener=listener,
        )
