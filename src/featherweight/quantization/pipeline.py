"""Walk the layers of a plan, solve each with its factors, and put the result where the layer was.

`solve_layer` is the pure step (tensors in, tensors and a record out); `quantize` walks a model in memory. The
workflow behind the shell's `quantize` walks a folder on disk instead, with the same step, one matrix in memory at a
time, and a journal record for each.

Matrices inside the blocks are rotated and rounded under curvature. So are tables (embedding and head) of fewer than 8 bits
a weight, with the Gram of the head's input; at 8 bits neither would be seen, and they are rounded to nearest as they are. An
embedding that no head shares has no input but ids: it is rotated and rounded to nearest.

Every record says what the layer cost: the relative squared error, the same weighted by curvature (for Gram factors the
relative error of the layer's outputs), the KL a token that the Fisher factors predict, and the damping used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..base.errors import UsageError
from ..base.events import Listener, silent, track
from ..models import structure
from .curvature.base import Factors
from .formats.base import Format, QWeight
from .layers import CompressedEmbedding, CompressedLinear, share_inputs, tie_head
from .plans import Plan
from .rounding import Nearest
from .rounding.base import Rounding
from .transforms.hadamard import Hadamard, pack_signs

TABLE_BITS = 8
GetFactors = Callable[[str], Factors | None]


@dataclass(frozen=True)
class Task:
    """One matrix to compress. `input_key` names what it reads; layers with equal keys share their rotation.

    `curvature` names the linear whose factors say what an error in it costs (None: it is rounded to nearest).
    """

    name: str
    format: Format
    shape: tuple[int, int]
    input_key: str
    in_block: bool
    curvature: str | None = None

    def rotation(self, transform: Hadamard | None) -> Hadamard | None:
        """How this matrix is rotated under `transform`: tables have their inputs rotated only, at 8 bits nothing."""
        if self.in_block or transform is None:
            return transform
        return replace(transform, output="none") if is_coarse(self.format, self.shape) else None


def is_coarse(format: Format, shape: tuple[int, int]) -> bool:
    """Whether a table in `format` is rounded so coarsely (below 8 bits) that rotation and curvature pay."""
    return format.bits(shape).bpw_codes < TABLE_BITS


@dataclass(frozen=True)
class Solution:
    """What is stored for a layer, and the record of what it cost."""

    task: Task
    weight: QWeight
    signs: Mapping[str, Tensor]
    record: Mapping[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """Every stored tensor under its buffer's name."""
        return {**self.weight.tensors, **self.signs}


def tasks(model: nn.Module, plan: Plan) -> list[Task]:
    """The plan's layers in the order of the model: blocks first to last, then embedding and head.

    Raises UsageError when a pattern matches nothing, a format cannot hold a layer, or the model has no linears.
    """
    linears = structure.linears(model)
    tied_head = structure.head(model) if structure.is_tied(model) else None
    shapes = {name: (m.out_features, m.in_features) for name, m in linears.items() if name != tied_head}
    table = structure.embedding(model)
    weight = model.get_parameter(f"{table}.weight")
    shapes[table] = (weight.shape[0], weight.shape[1])
    formats = plan.assign(shapes, {} if tied_head is None else {tied_head: table})
    keys = {name: group[0] for group in structure.shared_inputs(model) for name in group}
    inside = [name for block, _ in structure.blocks(model) for name in formats if name.startswith(f"{block}.")]
    order = inside + [name for name in formats if name not in set(inside)]
    known = set(inside)
    head = structure.head(model)
    # What an error in a table costs is known where a head multiplies with it.
    read = {table if head == tied_head else head: head} if head is not None else {}
    curvature = {n: n if n in known else read.get(n) if is_coarse(formats[n], shapes[n]) else None for n in order}
    return [Task(n, formats[n], shapes[n], keys.get(n, n), n in known, curvature[n]) for n in order]


def solve_layer(
    task: Task,
    w: Float[Tensor, "rows columns"],
    rounding: Rounding,
    factors: Factors | None,
    transform: Hadamard | None,
) -> Solution:
    """Rotate, round and account for one matrix; `factors` are those of `task.curvature`."""
    start = time.perf_counter()
    signs: dict[str, Tensor] = {}
    w = w.float()
    transform = task.rotation(transform)
    if transform is not None:
        rotated = transform.rotate(w, factors, task.input_key, task.name)
        w, factors = rotated.w, rotated.factors
        for key, values in (("input_signs", rotated.input_signs), ("output_signs", rotated.output_signs)):
            if values is not None:
                signs[key] = pack_signs(values)
    method = Nearest() if task.curvature is None else rounding
    solved = method.solve(w, factors, task.format, task.name)
    bits = task.format.bits(task.shape)
    record = {
        "name": task.name,
        "format": repr(task.format),
        "shape": list(task.shape),
        "weights": bits.weights,
        "rounding": repr(method),
        "bits": {
            "codes": bits.codes,
            "scales": bits.scales,
            "zeros": bits.zeros,
            "signs": sum(8 * s.numel() for s in signs.values()),
            "tables": bits.tables,
            "padding": bits.padding,
        },
        "damping": solved.damping,
        "output_damping": solved.output_damping,
        **errors(w, solved.weight.dense(), factors),
        "seconds": round(time.perf_counter() - start, 4),
    }
    return Solution(task, solved.weight, signs, record)


def errors(
    w: Float[Tensor, "rows columns"], light: Float[Tensor, "rows columns"], factors: Factors | None
) -> dict[str, float | None]:
    """Relative squared error, relative error under the Gram, and the predicted KL a token (None where unknown)."""
    delta = w - light
    power = float(w.square().sum(dtype=torch.float64))
    found: dict[str, float | None] = {
        "error_plain": float(delta.square().sum(dtype=torch.float64)) / power if power else 0.0,
        "error_weighted": None,
        "predicted_kl": None,
    }
    if factors is None:
        return found
    signal = float(((w @ factors.gram) * w).sum(dtype=torch.float64))
    noise = float(((delta @ factors.gram) * delta).sum(dtype=torch.float64))
    found["error_weighted"] = noise / signal if signal > 0 else 0.0
    if factors.output is not None and factors.sequences:
        loss = float(((delta @ factors.input) * (factors.output @ delta)).sum(dtype=torch.float64))
        found["predicted_kl"] = 0.5 * factors.scale * loss / (factors.tokens / factors.sequences)
    return found


def quantize(
    model: nn.Module,
    rounding: Rounding,
    plan: Plan,
    factors: Mapping[str, Factors] | None = None,
    transform: Hadamard | None = None,
    listener: Listener = silent,
) -> list[Mapping[str, Any]]:
    """Replace every planned layer of `model` by its compressed form, in place; returns the layers' records.

    A tied head keeps sharing the embedding's table. Raises UsageError before any work when the plan does not fit.
    """
    todo = tasks(model, plan)
    known = factors or {}
    records = []
    for solution in track(solve_all(model, todo, rounding, known.get, transform), "quantize", len(todo), listener):
        install(model, solution, None if transform is None else transform.output)
        records.append(solution.record)
    share_inputs(model)
    return records


def solve_all(
    model: nn.Module, todo: list[Task], rounding: Rounding, get: GetFactors, transform: Hadamard | None
) -> Iterator[Solution]:
    """Solve layer by layer; a layer is read when its turn comes."""
    for task in todo:
        weight = model.get_submodule(task.name).weight
        factors = None if task.curvature is None else get(task.curvature)
        yield solve_layer(task, weight.detach(), rounding, factors, transform)


def install(model: nn.Module, solution: Solution, output_rotation: str | None) -> None:
    """Put a solved layer where the dense one was; a head tied to it follows."""
    task = solution.task
    old = model.get_submodule(task.name)
    if isinstance(old, nn.Embedding):
        table = CompressedEmbedding.of(old, task.format, "input_signs" in solution.signs)
        table.fill(solution.tensors())
        tied = structure.head(model) if structure.is_tied(model) else None
        model.set_submodule(task.name, table)
        if tied is not None:
            tie_head(model, tied, table)
        return
    if not isinstance(old, nn.Linear):
        raise UsageError(f"{task.name} is a {type(old).__name__}, not a linear layer; was the model quantized before?")
    output = output_rotation if "output_signs" in solution.signs else None
    layer = CompressedLinear.of(old, task.format, "input_signs" in solution.signs, output or "none")
    layer.fill(solution.tensors())
    model.set_submodule(task.name, layer)
