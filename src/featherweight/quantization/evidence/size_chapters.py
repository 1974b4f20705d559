"""The chapters on size: bits per weight, and the content of the weight files by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ...reporting import BYTES, Bar, Bars, Chapter, KeyFigure, Part, Text, numbers
from .results import number_at
from .sizes import KINDS, LAST_KINDS, OriginalSize, Share, kind_label, original_sizes, shares


def describe_bits(results: Mapping[str, Any]) -> Chapter:
    """The chapter with the three figures of bits per weight."""
    size = results["size"]
    originals = [original for original in original_sizes(results) if original.bits is not None]
    small = f"was {numbers.number(originals[0].bits)}" if originals else ""
    values = [numbers.decimal(size.get(key), 3) for key in ("bpw_codes", "bpw_layers", "bpw_file")]
    figures = [
        KeyFigure("`bpw_codes`", values[0], note=_codes_note(size)),
        KeyFigure("`bpw_layers`", values[1], note=_layers_note(size)),
        KeyFigure("`bpw_file`", values[2], small, _file_note(results, originals)),
    ]
    note = (
        "Three figures that answer three questions, counted from what is stored; quoting one "
        "without the others misleads."
    )
    return Chapter("Bits per weight", [Text("", figures=figures)], note)


def _codes_note(size: Mapping[str, Any]) -> str:
    note = "Codes alone over the compressed weights"
    if (bits := number_at(size, "bpw_codes_blocks")) is None:
        return f"{note}, as papers print it."
    blocks = f"{numbers.decimal(bits, 3)} in the blocks alone, which is what papers print"
    return f"{note}, tables included; {blocks}."


def _layers_note(size: Mapping[str, Any]) -> str:
    """A note that lists the counted kinds: the usual ones, and those that only some formats
    store.
    """
    new_kinds = [kind for kind in size["bytes"] if kind not in KINDS | LAST_KINDS]
    kinds = ["Codes", "scales", "zero points", "signs", "code tables"]
    kinds += [
        kind_label(kind)
        for kind in ("masks", "low_rank", *new_kinds)
        if number_at(size["bytes"], kind)
    ]
    note = f"{', '.join(kinds)} and padding over the same weights"
    if (bits := number_at(size, "bpw_layers_blocks")) is not None:
        note += f"; {numbers.decimal(bits, 3)} in the blocks alone"
    return f"{note}."


def _file_note(results: Mapping[str, Any], originals: list[OriginalSize]) -> str:
    num_parameters = number_at(results["model"], "num_parameters")
    count = "" if num_parameters is None else f" {numbers.count(num_parameters)}"
    note = f"The weight files over all{count} parameters, embedding and head included."
    for original in originals[1:]:
        note += f" The {original.label} has {numbers.number(original.bits)}."
    return note


def describe_bytes(results: Mapping[str, Any]) -> Chapter | None:
    """The chapter with the size of the weight files before and after, and the content of the light
    model's files by kind; None when it is unknown.
    """
    parts = [Part(share.label, share.num_bytes, _tone(share)) for share in shares(results)]
    if not parts:
        return None
    originals = [
        Bar(_original_label(size), size.num_bytes, tone="quiet")
        for size in reversed(original_sizes(results))
    ]
    files = Bars(
        "Weight files before and after, on one scale",
        [*originals, Bar("Light", parts=parts)],
        BYTES,
        noun="Weight files",
        note="The light model's are enlarged below.",
        numbers_note="The light model's files by what the bytes are spent on. Embedding and head "
        "are counted apart from the blocks.",
        enlarge_last=True,
    )
    return Chapter("Where the bytes are", [files])


def _tone(share: Share) -> Literal["tint", "contrast", "faint"]:
    """The tone of a bar: shades of one colour for the kinds of the blocks, other colours for
    embedding, head and the remainder.
    """
    if share.kind == "embedding":
        return "contrast"
    return "faint" if share.kind == "other" else "tint"


def _original_label(size: OriginalSize) -> str:
    """The label of its bar: "Original, as published, bfloat16"."""
    if size.label == "source file":
        words = ["Source file", f"{size.bits_text} a weight" if size.bits_text else ""]
    else:
        words = ["Original", size.label if size.label == "as published" else "", size.dtype]
    return ", ".join(filter(None, words))
