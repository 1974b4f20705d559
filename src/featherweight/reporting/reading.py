"""What the report asks of results.json beyond looking up a key: where bytes went, which layer sits
where, the verdict.

The file may come from elsewhere or be older than this code, so nothing is assumed: what is missing
is left out of the sentence, the bar or the table, and is never guessed.

Layers are placed by name: the first number in a dotted name is its block, what follows is its place
in the block (`model.layers.7.mlp.down_proj` -> block 7, `mlp.down_proj`), numbers further in are
experts and share one place. A layer without a number is a table or a head. The ledger splits the
file: codes, scales, zeros, signs, code tables and padding of the blocks; embedding table and head,
whatever they are spent on; and the rest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import figures

KINDS = {
    "codes": "codes",
    "scales": "scales",
    "zeros": "zero points",
    "signs": "rotation signs",
    "tables": "code tables",
    "padding": "padding",
    "embedding": "embedding and head",
    "other": "everything else",
}


_INTERVAL: dict[str, Any] = {}
_TEXT = {
    "text": {"first_ids": []},
    "kl": _INTERVAL,
    "top1": _INTERVAL,
    "kl_windows": [],
    "perplexity_ratio": _INTERVAL,
    "original": {"perplexity": _INTERVAL},
    "light": {"perplexity": _INTERVAL},
}
# Where results.json holds mappings, and where lists; a list with one entry gives the shape of each
# of its items.
SHAPE: dict[str, Any] = {
    "model": {},
    "size": {"bytes": {}},
    "quality": _TEXT | {"others": [_TEXT]},
    "layers": [{"bits": {}, "fallbacks": []}],
    "calibration": {"sources": [{}]},
    "seconds": {},
    "machine": {},
    "versions": {},
    "warnings": [],
    "samples": [{}],
}


@dataclass(frozen=True)
class Place:
    """Where a layer sits: its block and its name inside the block."""

    block: int
    within: str


@dataclass(frozen=True)
class Share:
    """Bytes of one kind in the weight files."""

    kind: str
    label: str
    num_bytes: float


def tidy(value: Any, shape: Any = SHAPE) -> Any:
    """`value` with mappings and lists where `shape` has them, so that what follows need not ask;
    the rest untouched.

    What should be a mapping or a list and is not becomes an empty one; items of a wrong kind are
    left out.
    """
    if isinstance(shape, dict):
        known = dict(value) if isinstance(value, Mapping) else {}
        return known | {key: tidy(known.get(key), inner) for key, inner in shape.items()}
    items = value if isinstance(value, list) else []
    if not shape:
        return items
    return [tidy(item, shape[0]) for item in items if isinstance(item, Mapping)]


def section(results: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The mapping at `path`, or an empty one where there is none."""
    found: Any = results
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def records(results: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The list of mappings at `key`; anything else in it is left out."""
    found = results.get(key)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def place(name: str) -> Place | None:
    """The place of a layer by its name, None outside the blocks."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal():
            return Place(int(part), ".".join("*" if p.isdecimal() else p for p in parts[i + 1 :]))
    return None


def worst_first(layers: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Layers by curvature-weighted error, largest first; by plain error where no curvature was
    collected.
    """
    key = ranked_by(layers)
    return sorted(
        layers, key=lambda layer: -(layer[key] if figures.is_number(layer.get(key)) else -1.0)
    )


def ranked_by(layers: list[Mapping[str, Any]]) -> str:
    """The key that `worst_first` sorts by."""
    for key in ("error_weighted", "error_plain"):
        if any(figures.is_number(layer.get(key)) for layer in layers):
            return key
    return "error_plain"


def bits_per_weight(layer: Mapping[str, Any]) -> float | None:
    """Everything stored for a layer over its weights."""
    bits, weights = section(layer, "bits"), layer.get("weights")
    stored = [value for key, value in bits.items() if key in KINDS and figures.is_number(value)]
    return sum(stored) / weights if stored and figures.is_number(weights) and weights else None


def ledger(results: Mapping[str, Any]) -> list[Share]:
    """Where the bytes of the weight files went, in the order of KINDS, empty kinds left out; they
    add up to the file.

    `size.bytes` counts by kind over all layers; what embedding and head take is moved to a share of
    its own.
    """
    spent = {
        k: float(v) for k, v in section(results, "size", "bytes").items() if figures.is_number(v)
    }
    total: Any = section(results, "size").get("file_bytes")
    if not spent or not figures.is_number(total):
        return []
    if "embedding" not in spent:
        _move_tables(spent, records(results, "layers"))
    named = {kind: max(0.0, spent.get(kind, 0.0)) for kind in KINDS}
    named["other"] = max(
        0.0, total - sum(value for kind, value in named.items() if kind != "other")
    )
    return [Share(kind, label, named[kind]) for kind, label in KINDS.items() if named[kind] > 0]


def _move_tables(spent: dict[str, float], layers: list[Mapping[str, Any]]) -> None:
    inside: defaultdict[str, float] = defaultdict(float)
    outside: defaultdict[str, float] = defaultdict(float)
    for layer in layers:
        where = outside if place(str(layer.get("name", ""))) is None else inside
        for kind, bits in section(layer, "bits").items():
            if figures.is_number(bits):
                where[kind] += bits / 8
    spent["embedding"] = float(sum(outside.values()))
    for kind, num_bytes in outside.items():
        # A ledger whose kinds cover the blocks only has the tables among the rest.
        covered = spent.get(kind, 0.0) >= 0.999 * (inside[kind] + num_bytes)
        source = kind if covered else "other"
        spent[source] = spent.get(source, 0.0) - num_bytes


def solved_by(layer: Mapping[str, Any]) -> str:
    """How a layer was solved, in a line: "YAQA, gate 0.841, damping 0.03/0.3".

    Two dampings are two sides; the gate is the expected loss of both over that of one.
    """
    # The rounding's own arguments are in the recipe; what damping was really used follows.
    parts = [str(layer["rounding"]).partition("(")[0]] if layer.get("rounding") is not None else []
    if figures.is_number(layer.get("gate")):
        parts.append(f"gate {figures.number(layer['gate'])}")
    damping = [
        f"{layer[k]:g}" for k in ("damping", "output_damping") if figures.is_number(layer.get(k))
    ]
    if damping:
        parts.append(f"damping {'/'.join(damping)}")
    fallbacks = layer.get("fallbacks")
    parts += [str(fallback) for fallback in fallbacks] if isinstance(fallbacks, list) else []
    return ", ".join(parts) or figures.MISSING


def formats(results: Mapping[str, Any]) -> str:
    """Which formats hold how many layers: "210 layers in Trellis(bits=3), 1 in Int(bits=8)"."""
    found = Counter(
        str(layer.get("format")) for layer in records(results, "layers") if layer.get("format")
    )
    parts = [
        f"{n} {'layers ' if i == 0 else ''}in {name}"
        for i, (name, n) in enumerate(found.most_common())
    ]
    return ", ".join(parts)


def verdict(results: Mapping[str, Any]) -> str:
    """One sentence: what was gained and what it cost, of the figures that were measured."""
    model, size, quality = (section(results, key) for key in ("model", "size", "quality"))
    name = str(model.get("name") or "The model")
    after, before = size.get("file_bytes"), model.get("source_file_bytes")
    gained = (
        f"{name} now takes {figures.size(after)}"
        if figures.is_number(after)
        else f"{name} was compressed"
    )
    if figures.is_number(after) and figures.is_number(before):
        gained += f" instead of {figures.size(before)}"
        if figures.is_number(bits := model.get("source_bits")):
            gained += f" ({figures.number(bits, 2)} bits a weight)"
    costs = []
    if (agreement := figures.mean(quality.get("top1"))) is not None:
        costs.append(
            f"its most likely next token is the original's {figures.percent(agreement)} of the time"
        )
    if (kl := figures.mean(quality.get("kl"))) is not None:
        ends = figures.span(quality["kl"])
        interval = f" ({level(results)} interval {ends})" if ends != figures.MISSING else ""
        costs.append(f"the KL from the original is {figures.number(kl)} nats a token{interval}")
    old, new = (
        figures.mean(section(quality, which).get("perplexity")) for which in ("original", "light")
    )
    if old is not None and new is not None:
        where = section(quality, "text").get("name")
        on = f" on {where}" if where else ""
        costs.append(f"perplexity{on} goes from {figures.fixed(old, 2)} to {figures.fixed(new, 2)}")
    if not costs:
        return f"{gained}; what that cost was not measured."
    joined = costs[0] if len(costs) == 1 else f"{', '.join(costs[:-1])}, and {costs[-1]}"
    return f"{gained}: {joined}."


def level(results: Mapping[str, Any]) -> str:
    """The level of the intervals, "95 %", or the word "bootstrap" where the file does not say."""
    value = section(results, "quality").get("level")
    return figures.percent(value, 0) if figures.is_number(value) else "bootstrap"
