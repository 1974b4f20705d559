"""Quantize a model layer by layer: plan the layers, solve each with its factors, put it in place.

`solve_layer` is the pure step: tensors in, tensors and a record out. `quantize` walks a model in
memory. The workflow behind the shell's `quantize` walks a folder on disk with the same step, one
matrix in memory at a time, and journals each record.

Matrices inside the blocks are rotated, and rounded under curvature. So are tables (embedding and
head) of fewer than 8 bits a weight, with the Gram of the head's input. At 8 bits neither rotation
nor curvature makes a difference that one could measure, so tables are rounded to nearest without
them. An embedding that no head shares has only ids as input: it is rotated and rounded to nearest.

Every record says what the layer cost: the relative squared error; the same weighted by curvature
(with a Gram, the relative error of the layer's outputs); the KL in nats a token that the Fisher
factors predict; and the damping that was needed.
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
from ..models.anatomy import Anatomy
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
class LayerPlan:
    """One matrix to compress, of `shape` (outputs, inputs).

    Layers with equal `input_key` read the same tensor and share its rotation. `curvature` names the
    linear whose factors say what an error in this matrix costs; None: it is rounded to nearest.
    """

    name: str
    format: Format
    shape: tuple[int, int]
    input_key: str
    in_block: bool
    curvature: str | None = None

    def rotation(self, transform: Hadamard | None) -> Hadamard | None:
        """How this matrix is rotated under `transform`: tables have their inputs rotated only, at 8
        bits nothing.
        """
        if self.in_block or transform is None:
            return transform
        return replace(transform, output="none") if is_coarse(self.format, self.shape) else None


def is_coarse(format: Format, shape: tuple[int, int]) -> bool:
    """Whether a table in `format` is rounded so coarsely (below 8 bits) that rotation and curvature
    pay.
    """
    return format.ledger(shape).bpw_codes < TABLE_BITS


@dataclass(frozen=True)
class LayerResult:
    """What is stored for a layer, and the record of what it cost."""

    layer_plan: LayerPlan
    weight: QWeight
    signs: Mapping[str, Tensor]
    record: Mapping[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """Every stored tensor under its buffer's name."""
        return {**self.weight.tensors, **self.signs}


def plan_layers(anatomy: Anatomy, plan: Plan) -> list[LayerPlan]:
    """The matrices that `plan` compresses, in the order of the model: blocks first to last, then
    embedding and head.

    Raises UsageError when a pattern matches nothing or a format cannot hold a layer.
    """
    shapes = anatomy.matrices
    tied_head = anatomy.head if anatomy.is_tied else None
    formats = plan.assign(shapes, {} if tied_head is None else {tied_head: anatomy.embedding})
    block_names = [name for name in anatomy.block_linears if name in formats]
    in_block = set(block_names)
    order = block_names + [name for name in formats if name not in in_block]
    # What an error in a table costs is known where a head multiplies with it.
    head_tables = {} if anatomy.head is None else {anatomy.tables[-1]: anatomy.head}

    def curvature_of(name: str) -> str | None:
        if name in in_block:
            return name
        return head_tables.get(name) if is_coarse(formats[name], shapes[name]) else None

    return [
        LayerPlan(
            name,
            formats[name],
            shapes[name],
            anatomy.input_keys.get(name, name),
            name in in_block,
            curvature_of(name),
        )
        for name in order
    ]


def solve_layer(
    layer_plan: LayerPlan,
    w: Float[Tensor, "rows columns"],
    rounding: Rounding,
    factors: Factors | None,
    transform: Hadamard | None,
) -> LayerResult:
    """Rotate and round the weights `w` of one layer, and record what it cost.

    factors: those of `layer_plan.curvature`, for the unrotated weights. Raises BadInput for weights
    or factors that are not finite or cannot be used.
    """
    start = time.perf_counter()
    signs: dict[str, Tensor] = {}
    w = w.float()
    transform = layer_plan.rotation(transform)
    if transform is not None:
        rotation = transform.rotate(w, factors, layer_plan.input_key, layer_plan.name)
        w, factors = rotation.w, rotation.factors
        for key, values in (
            ("input_signs", rotation.input_signs),
            ("output_signs", rotation.output_signs),
        ):
            if values is not None:
                signs[key] = pack_signs(values)
    method = Nearest() if rounding.needs_curvature and layer_plan.curvature is None else rounding
    result = method.solve(w, factors, layer_plan.format, layer_plan.name)
    ledger = layer_plan.format.ledger(layer_plan.shape)
    bits_by_kind = {**ledger.bits_by_kind, "signs": sum(8 * s.numel() for s in signs.values())}
    record = {
        "name": layer_plan.name,
        "format": repr(layer_plan.format),
        "shape": list(layer_plan.shape),
        "weights": ledger.weights,
        "rounding": repr(method),
        "bits": {kind: bits for kind, bits in bits_by_kind.items() if bits},
        "damping": result.damping,
        "output_damping": result.output_damping,
        **errors(w, result.weight.dense(), factors),
        "seconds": round(time.perf_counter() - start, 4),
    }
    return LayerResult(layer_plan, result.weight, signs, record)


def errors(
    w: Float[Tensor, "rows columns"], light: Float[Tensor, "rows columns"], factors: Factors | None
) -> dict[str, float | None]:
    """Relative squared error, relative error under the Gram, and predicted KL in nats a token.

    w, light: the weights before and after, in the basis of `factors`. None where factors are
    missing.
    """
    delta = w - light
    power = float(w.square().sum(dtype=torch.float64))
    measures: dict[str, float | None] = {
        "error_plain": float(delta.square().sum(dtype=torch.float64)) / power if power else 0.0,
        "error_weighted": None,
        "predicted_kl": None,
    }
    if factors is None:
        return measures
    signal = float(((w @ factors.gram) * w).sum(dtype=torch.float64))
    noise = float(((delta @ factors.gram) * delta).sum(dtype=torch.float64))
    measures["error_weighted"] = noise / signal if signal > 0 else 0.0
    if factors.output is not None and factors.sequences:
        loss = float(((delta @ factors.input) * (factors.output @ delta)).sum(dtype=torch.float64))
        measures["predicted_kl"] = 0.5 * factors.scale * loss / (factors.tokens / factors.sequences)
    return measures


def quantize(
    model: nn.Module,
    rounding: Rounding,
    plan: Plan,
    factors: Mapping[str, Factors] | None = None,
    transform: Hadamard | None = None,
    listener: Listener = silent,
) -> list[Mapping[str, Any]]:
    """Replace every planned layer of `model` by its compressed form, in place.

    rounding: who chooses the numbers. plan: which format where. factors: curvature by layer name,
    as `Curvature.collect` gives it; None for `Nearest`. transform: rotates weights first. listener:
    receives progress.

    Returns a record of each layer, as `solve_layer` makes it. A tied head still shares the
    embedding's table. Raises UsageError before any work when the plan does not fit the model,
    BadInput when a rounding that needs curvature gets none.
    """
    layer_plans = plan_layers(Anatomy.of(model), plan)
    records = []
    results = solve_all(model, layer_plans, rounding, (factors or {}).get, transform)
    for result in track(results, "quantize", len(layer_plans), listener):
        install(model, result, None if transform is None else transform.output)
        records.append(result.record)
    share_inputs(model)
    return records


def solve_all(
    model: nn.Module,
    layer_plans: list[LayerPlan],
    rounding: Rounding,
    get_factors: GetFactors,
    transform: Hadamard | None,
) -> Iterator[LayerResult]:
    """Solve layer by layer; the weights of a layer are read when the caller asks for its result."""
    for layer_plan in layer_plans:
        weight = model.get_submodule(layer_plan.name).weight
        factors = None if layer_plan.curvature is None else get_factors(layer_plan.curvature)
        yield solve_layer(layer_plan, weight.detach(), rounding, factors, transform)


def install(model: nn.Module, result: LayerResult, output_rotation: str | None) -> None:
    """Replace the dense layer of `model` by its result, and the head that is tied to it."""
    layer_plan = result.layer_plan
    module = model.get_submodule(layer_plan.name)
    if isinstance(module, nn.Embedding):
        table = CompressedEmbedding.of(module, layer_plan.format, "input_signs" in result.signs)
        table.fill(result.tensors())
        tied_head = structure.head(model) if structure.is_tied(model) else None
        model.set_submodule(layer_plan.name, table)
        if tied_head is not None:
            tie_head(model, tied_head, table)
        return
    if not isinstance(module, nn.Linear):
        raise UsageError(
            f"{layer_plan.name} is a {type(module).__name__}, not a linear layer; "
            "was the model quantized before?"
        )
    output = output_rotation if "output_signs" in result.signs else None
    layer = CompressedLinear.of(
        module, layer_plan.format, "input_signs" in result.signs, output or "none"
    )
    layer.fill(result.tensors())
    model.set_submodule(layer_plan.name, layer)
