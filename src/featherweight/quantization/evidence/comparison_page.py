"""The page of a comparison of models, made from its results.json: what each model costs and keeps,
and which of the differences are more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...reporting import (
    BYTES,
    NUMBER,
    SHARE,
    Axis,
    Chapter,
    Column,
    Curve,
    Line,
    Points,
    Scatter,
    Section,
    Table,
    Text,
    Unit,
    numbers,
    render,
)
from ...reporting.sections import Cell
from .places import group_text, place_text
from .task_chapters import describe_prompts

NATS = Unit(name="nats")
ONE_DECIMAL, TWO_DECIMALS, FOUR_DECIMALS = (Unit(decimals=count) for count in (1, 2, 4))
MIN_WINDOWS = 8  # intervals over fewer windows are too narrow
BUSY_LOAD = 1.5  # times the cores: speeds above such a load average say little

Results = Mapping[str, Any]


def comparison_page(results: Results) -> str:
    """The page as HTML text."""
    names = [model["name"] for model in results["models"]]
    count = len(names) - 1
    chapters = [
        _describe_models(results),
        _describe_places(results),
        _describe_tasks(results),
        _describe_protocol(results),
    ]
    version = results["versions"].get("featherweight")
    return render(
        f"{results['original']} and {count} light model{'s' if count > 1 else ''}",
        verdict(results),
        [chapter for chapter in chapters if chapter is not None],
        subtitle=", ".join(names),
        eyebrow="featherweight comparison",
        window_title=f"{results['original']}: comparison",
        footer=f"Made from results.json by featherweight{f' {version}' if version else ''}.",
    )


def is_comparison(results: Results) -> bool:
    """Whether a results.json is that of a comparison."""
    return "measures" in results and "models" in results


def verdict(results: Results) -> str:
    """Which model is nearest to the original, and whether others tie with it."""
    measure = results["measures"][0]
    leaders = [place["model"] for place in measure["places"] if place["place"] == 1]
    by_name = {model["name"]: model for model in results["models"]}
    figures = [
        f"{name} ({numbers.number(by_name[name]['quality']['kl']['mean'])} nats a token, "
        f"{numbers.size(by_name[name]['size']['file_bytes'])})"
        for name in leaders
    ]
    if len(leaders) == 1:
        return f"Nearest to {results['original']} by KL is {figures[0]}."
    smallest = min(leaders, key=lambda name: by_name[name]["size"]["file_bytes"])
    return (
        f"Nearest to {results['original']} by KL are {' and '.join(figures)}: a tie. "
        f"{smallest} is the smallest of them."
    )


def _describe_models(results: Results) -> Chapter:
    note = (
        f"{results['original']} is the original. KL is the distance of a model's next-token "
        "distributions from the original's, averaged over every token of the text. Models whose "
        "difference could be chance tie: they share a place."
    )
    sections: list[Section] = [_distances(results), _costs(results)]
    return Chapter("Side by side", [*sections, _scatter(results), _tails(results)], note)


def _distances(results: Results) -> Table:
    """How far each light model is from the original."""
    columns = [
        Column("Model"),
        Column("KL,\nnats", NUMBER),
        Column(f"{numbers.percent(results['level'], 0)}\ninterval", align="right"),
        Column("Place", align="right"),
        Column("KL, median\ntoken", NUMBER),
        Column("KL, 99.9th\npercentile", NUMBER),
        Column("Same next\ntoken", SHARE),
        Column("Place", align="right"),
    ]
    rows = []
    for model in results["models"]:
        if model["is_original"]:
            continue
        name, kl = model["name"], model["quality"]["kl"]
        rows.append(
            [
                name,
                kl["mean"],
                numbers.interval_ends(kl),
                place_text(results, "KL", name),
                kl["median"],
                kl["p999"],
                model["quality"]["top1"]["mean"],
                place_text(results, "top-1 agreement", name),
            ]
        )
    return Table("Distance from the original", columns, rows, full_width=True)


def _costs(results: Results) -> Table:
    """Size, perplexity and speed of every model."""
    columns = [
        Column("Model"),
        Column("Weight\nfiles", BYTES, meter=True),
        Column("Bits a\nweight", TWO_DECIMALS),
        Column("Perplexity", TWO_DECIMALS),
        Column(f"{numbers.percent(results['level'], 0)}\ninterval", align="right"),
        Column("Place", align="right"),
    ]
    if results["speed"] is not None:
        columns += [Column("Tokens\na second", ONE_DECIMAL), Column("Place", align="right")]
    rows = []
    for model in results["models"]:
        name, perplexity = model["name"], model["quality"]["light"]["perplexity"]
        row = [
            f"{name} (original)" if model["is_original"] else name,
            model["size"]["file_bytes"],
            model["size"]["bits"],
            perplexity["mean"],
            TWO_DECIMALS.interval(perplexity["low"], perplexity["high"]),
            place_text(results, "perplexity", name),
        ]
        if results["speed"] is not None:
            place = place_text(results, "tokens a second", name)
            row += [model["speed"]["decode"]["mean"], place]
        rows.append(row)
    dtype = _original(results)["size"]["dtype"]
    note = f"The size of {results['original']} is that in {dtype}." if dtype else ""
    return Table("Size, perplexity and speed", columns, rows, note, full_width=True)


def _original(results: Results) -> Mapping[str, Any]:
    return next(model for model in results["models"] if model["is_original"])


def _scatter(results: Results) -> Scatter:
    """KL against bytes, without the original, whose KL is 0."""
    models = [model for model in results["models"] if not model["is_original"]]
    kls = [model["quality"]["kl"] for model in models]
    points = Points(
        "",
        [model["size"]["file_bytes"] for model in models],
        [kl["mean"] for kl in kls],
        [model["name"] for model in models],
        [kl["low"] for kl in kls],
        [kl["high"] for kl in kls],
    )
    size = numbers.size(_original(results)["size"]["file_bytes"])
    return Scatter(
        "KL against size",
        [points],
        Axis("weight files", BYTES),
        Axis("KL", NATS, log=all(kl["low"] is not None and kl["low"] > 0 for kl in kls)),
        note=f"Low and left is better. The original has {size} and no KL.",
        half_width=True,
    )


def _tails(results: Results) -> Curve:
    """The share of tokens with more than a KL, over the KL. Tokens without any KL have no place on
    the logarithmic axis.
    """
    lines = []
    for model in results["models"]:
        if model["is_original"]:
            continue
        tail = model["kl_tail"]
        points = [
            (kl, share) for kl, share in zip(tail["kl"], tail["shares"], strict=True) if kl > 0
        ]
        lines.append(Line(model["name"], [x for x, _ in points], [y for _, y in points]))
    return Curve(
        "How KL is spread over tokens",
        lines,
        Axis("KL of a token", NATS, log=True),
        Axis("tokens with more", SHARE, log=True),
        note="A model may be near on average and far on a few tokens.",
        half_width=True,
    )


def _describe_places(results: Results) -> Chapter:
    note = (
        "Every model is compared with the best one over the same units, resampled "
        f"{numbers.count(results['resamples'])} times. Where the "
        f"{numbers.percent(results['level'], 0)} interval of the difference contains 0 (of a "
        "ratio: 1), the measurement cannot tell the two apart: they tie, and share the place."
    )
    return Chapter(
        "Which differences are real", [_places_table(m) for m in results["measures"]], note
    )


def _places_table(measure: Mapping[str, Any]) -> Table:
    name, unit = (
        ("Ratio to\nthe best", FOUR_DECIMALS)
        if measure["is_ratio"]
        else ("Difference\nfrom the best", NUMBER)
    )
    columns = [
        Column("Model"),
        Column("Place", align="right"),
        Column(name, unit),
        Column("Interval", align="right"),
    ]
    rows: list[list[Cell]] = []
    for place in measure["places"]:
        difference = place["difference"]
        figures: list[Cell] = ["", ""]
        if difference is not None:
            ends = unit.interval(difference["low"], difference["high"])
            figures = [difference["mean"], ends]
        rows.append([place["model"], group_text(place), *figures])
    better = "less is better" if measure["prefers"] == "low" else "more is better"
    title = measure["title"]
    if measure["unit"] != "examples":  # the name of a task stays as it is
        title = f"{title[0].upper()}{title[1:]}"
    title = f"{title}, by {measure['unit']}; {better}"
    return Table(title, columns, rows, sortable=False, half_width=True)


def _describe_tasks(results: Results) -> Chapter | None:
    """Accuracies by model and task, and the prompts, which are the same for all models."""
    first_model = results["models"][0]
    if not first_model.get("tasks"):
        return None
    columns = [Column("Model")]
    for task in first_model["tasks"]:
        columns += [Column(f"{task['name']},\naccuracy", align="right")]
        columns += [Column("Place", align="right")]
        if "acc_norm" in task["metrics"]:
            columns += [Column(f"{task['name']},\nper character", align="right")]
    rows = []
    for model in results["models"]:
        row = [model["name"]]
        for task in model["tasks"]:
            metrics = task["metrics"]
            row += [_accuracy(metrics["acc"]), place_text(results, task["name"], model["name"])]
            row += [_accuracy(metrics["acc_norm"])] if "acc_norm" in metrics else []
        rows.append(row)
    counts = ", ".join(f"{task['items']} of {task['name']}" for task in first_model["tasks"])
    table = Table("", columns, rows, f"Examples: {counts}.", full_width=True)
    warnings = [
        f"{model['name']}: {task['ungraded']} answers of {task['name']} are ungraded"
        for model in results["models"]
        for task in model["tasks"]
        if task["ungraded"]
    ]
    warning_texts: list[Section] = [Text("Ungraded", warnings=warnings)] if warnings else []
    prompts = [describe_prompts(task) for task in first_model["tasks"]]
    note = "Intervals resample examples; places compare the same examples in pairs."
    return Chapter("Tasks", [table, *warning_texts, *prompts], note)


def _accuracy(metric: Mapping[str, Any]) -> str:
    ends = numbers.interval_ends(metric, as_percent=True)
    return numbers.percent(metric["mean"]) + ("" if ends == numbers.DASH else f" ({ends})")


def _describe_protocol(results: Results) -> Chapter:
    """How all of it was measured."""
    text, machine = results["text"], results["machine"]
    bos = "with a BOS" if text["bos"] else "without a BOS"
    facts = [
        (
            "Text",
            f"{text['name']}: {numbers.count(text['windows'])} windows of "
            f"{numbers.count(text['length'])} tokens, {bos}, the same for all models",
        ),
        ("First token ids", " ".join(map(str, text["first_ids"]))),
        ("Logits", f"PyTorch in float32; the original's kept in {results['answers']['dtype']}"),
        ("Sizes", "files of light models; an original as it was published"),
        *_engine_facts(results),
        ("Machine", f"{machine['cpu']}, {machine['cores']} cores"),
    ]
    warnings = []
    if text["windows"] < MIN_WINDOWS:
        warnings.append(
            f"Fewer than {MIN_WINDOWS} windows: the intervals are too narrow to be trusted, and "
            "so are the places."
        )
    if results["speed"] is not None and results["speed"]["load"][1] > BUSY_LOAD * machine["cores"]:
        warnings.append("The machine was busy while speed was measured.")
    return Chapter("How it was measured", [Text("", facts=facts, warnings=warnings)])


def _engine_facts(results: Results) -> list[tuple[str, str]]:
    facts = []
    if results["speed"] is not None:
        speed = results["speed"]
        low, high = speed["load"]
        facts.append(
            (
                "Speed",
                f"{speed['rounds']} rounds in turns, {speed['tokens']} tokens decoded after one; "
                f"load average {low:.1f} to {high:.1f}",
            )
        )
    for model in results["models"]:
        engine = (model.get("speed") or model.get("engine") or {}).copy()
        description = engine.get("engine") or engine.get("description")
        if description:
            facts.append((model["name"], str(description)))
    return facts
