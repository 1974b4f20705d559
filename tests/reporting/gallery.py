"""One page with every kind of section, drawn from the figures of real runs."""

from __future__ import annotations

from tests.reporting.real import (
    BLOCK_KLS,
    DOWN_PROJ,
    FILE,
    MEAN_KL,
    OURS,
    PERPLEXITIES,
    PUBLISHED_BYTES,
    SECONDS,
    THEIRS,
    UP_PROJ,
    WINDOW_KLS,
)

from featherweight import reporting
from featherweight.reporting import (
    BYTES,
    COUNT,
    Axis,
    Bar,
    Bars,
    Chapter,
    Column,
    ColumnBars,
    Curve,
    HeatMap,
    KeyFigure,
    Line,
    Part,
    Points,
    ReferenceLine,
    Sample,
    Samples,
    Scatter,
    Table,
    Text,
    Unit,
)

NATS = Unit(name="nats")
BLOCKS = list(range(len(BLOCK_KLS)))


def windows() -> Scatter:
    reference = ReferenceLine("mean", MEAN_KL["mean"], MEAN_KL["low"], MEAN_KL["high"])
    points = Points("", WINDOW_KLS, names=[f"window {i + 1}" for i in range(len(WINDOW_KLS))])
    return Scatter("KL of each window", [points], Axis("KL", NATS), reference=reference)


def pareto() -> Scatter:
    groups = []
    for label, files in (("featherweight", OURS), ("llama.cpp", THEIRS)):
        sizes, kls = zip(*files.values(), strict=True)
        groups.append(Points(label, sizes, kls, list(files), connect=label == "featherweight"))
    return Scatter("KL over size", groups, Axis("Size", BYTES), Axis("KL", NATS, log=True))


def errors() -> Curve:
    lines = [
        Line("down_proj", BLOCKS, DOWN_PROJ),
        Line("up_proj", BLOCKS, UP_PROJ, [0.9 * e for e in UP_PROJ], [1.1 * e for e in UP_PROJ]),
    ]
    return Curve("Error by block", lines, Axis("Block", COUNT), Axis("Error", log=True))


def perplexities() -> Bars:
    bars = [Bar(label, *values) for label, values in PERPLEXITIES.items()]
    return Bars("Perplexity", bars, Unit(decimals=2), noun="Model", dots=True)


def stages() -> Bars:
    bars = [Bar(stage, seconds) for stage, seconds in SECONDS.items()]
    return Bars("Time by stage", bars, reporting.SECONDS, noun="Stage", compact=True)


def files() -> Bars:
    tones = {"embedding and head": "contrast"}
    parts = [Part(kind, size, tones.get(kind, "tint")) for kind, size in FILE.items()]
    bars = [Bar("Published", PUBLISHED_BYTES, tone="quiet"), Bar("Light", parts=parts)]
    return Bars("Weight files", bars, BYTES, noun="File", enlarge_last=True)


def layers() -> HeatMap:
    return HeatMap(
        "Every layer",
        ["up_proj", "down_proj"],
        [str(block) for block in BLOCKS],
        [UP_PROJ, [*DOWN_PROJ[:-2], None, DOWN_PROJ[-1]]],
        "Weighted error",
        row_noun="layer",
        column_noun="block",
        bars=ColumnBars("KL of one\nblock alone", [*BLOCK_KLS[:-1], None], hint="nats"),
        blanks={(0, 3)},
        hints={(0, 0): "model.layers.0.mlp.up_proj"},
    )


def runs(num_rows: int = 30) -> Table:
    columns = [Column("Layer", code=True), Column("Error", meter=True, unit=Unit())]
    rows = [[f"layers.{block}", DOWN_PROJ[block]] for block in BLOCKS[:num_rows]]
    return Table("All runs", columns, rows, "Largest first.", first_rows=10, row_noun="layers")


def page() -> str:
    """All of them."""
    pictures = [windows(), perplexities(), errors(), pareto(), stages(), files(), layers()]
    return reporting.render(
        "Gallery",
        "Every kind of section is here.",
        [
            Chapter("Pictures", pictures, "Drawn from `results.json`."),
            runs(),
            Text("Words", facts=[("Seed", "0")], code="bits: 2", warnings=["It is hot.", "Cold."]),
            Samples("Answers", ("Original", "Light"), [Sample("Why?", ["Because.", "So."])]),
        ],
        figures=[KeyFigure("Size", "55.5 MB", note="was `269 MB`")],
    )
