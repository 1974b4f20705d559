"""Quantizes a model layer by layer: plan the layers, solve each with its factors, replace it by its
compressed form.

`solve_layer` is the step for one layer: it takes tensors and returns tensors and a record.
`quantize` applies it to a model in memory. The workflow of the shell's `quantize` applies the same
step to a folder on disk, with one matrix in memory at a time, and journals each record.

Matrices inside the blocks are rotated and rounded with curvature. Tables (embedding and head) of
fewer than 8 bits a weight are too, with the Gram matrix of the head's input. At 8 bits neither
rotation nor curvature makes a measurable difference, so such tables are rounded to nearest without
them. An embedding that no head shares has only ids as input, so it has no Gram matrix: it is
rotated and rounded to nearest.

The record of a layer holds its errors: the relative squared error; the same error weighted by
curvature (with a Gram matrix this is the relative error of the layer's outputs); the KL in nats a
token that the Fisher factors predict; and the damping that was needed.
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
from .layers import CompressedEmbedding, CompressedLinear, description_of, share_inputs, tie_head
from .plans import Plan
from .rounding import Nearest
from .rounding.base import Rounding
from .transforms.hadamard import Hadamard, pack_signs

TABLE_BITS = 8
UNREACHED = "no forward pass calls this layer, so it has no curvature: rounded to nearest"
GetFactors = Callable[[str], Factors | None]


@dataclass(frozen=True)
class LayerPlan:
    """One matrix to compress, of `shape` (outputs, inputs).

    Layers with equal `input_key` read the same tensor and share its rotation. `in_block`: whether
    the matrix is inside a block. `curvature`: the name of the linear layer whose factors are used
    to round this matrix; None when it is rounded to nearest. `notes`: what a user should know of
    this decision.
    """

    name: str
    format: Format
    shape: tuple[int, int]
    input_key: str
    in_block: bool
    curvature: str | None = None
    notes: tuple[str, ...] = ()

    def rotation(self, transform: Hadamard | None) -> Hadamard | None:
        """The rotation of this matrix when the run uses `transform`: of a table only the input side
        is rotated, and a table of 8 bits is not rotated at all.
        """
        if self.in_block or transform is None:
            return transform
        return replace(transform, output="none") if is_coarse(self.format, self.shape) else None


def is_coarse(format: Format, shape: tuple[int, int]) -> bool:
    """Whether a table in `format` has so few bits (below 8) that rotation and curvature reduce its
    error measurably.
    """
    return format.ledger(shape).bpw_codes < TABLE_BITS


@dataclass(frozen=True)
class LayerResult:
    """The stored tensors of a layer, and the record with its errors."""

    layer_plan: LayerPlan
    weight: QWeight
    signs: Mapping[str, Tensor]
    record: Mapping[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """All stored tensors by the names of their buffers."""
        return {**self.weight.tensors, **self.signs}


def plan_layers(anatomy: Anatomy, plan: Plan) -> list[LayerPlan]:
    """The matrices that `plan` compresses: those of the blocks, from first to last, then embedding
    and head.

    Raises UsageError when a pattern matches nothing or a format cannot hold a layer.
    """
    shapes = anatomy.matrices
    tied_head = anatomy.head if anatomy.is_tied else None
    formats = plan.assign(shapes, {} if tied_head is None else {tied_head: anatomy.embedding})
    block_names = [name for name in anatomy.block_linears if name in formats]
    in_block = set(block_names)
    order = block_names + [name for name in formats if name not in in_block]
    # Only a table that a head multiplies with has curvature: that of the head's input.
    head_tables = {} if anatomy.head is None else {anatomy.tables[-1]: anatomy.head}

    def curvature_of(name: str) -> str | None:
        if name in anatomy.unreached:
            return None
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
            (UNREACHED,) if name in anatomy.unreached else (),
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
    """Rotate and round the weights `w` of one layer, and record the errors.

    factors: those of the layer `layer_plan.curvature`, for the unrotated weights; None without
    curvature. transform: the rotation of the run, or None. Raises BadInput for weights or factors
    that are not finite or cannot be used.
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
    """The relative squared error, the relative error weighted by the Gram matrix, and the predicted
    KL in nats a token.

    w, light: the weights before and after rounding, in the basis of `factors`. An error whose
    factors are missing is None.
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

    rounding: the method that chooses the codes. plan: assigns a format to each layer. factors:
    curvature by layer name, as `Curvature.collect` returns it; None for `Nearest`. transform:
    rotates the weights before rounding. listener: receives an event for each layer.

    Returns the record of each layer (see `solve_layer`). A tied head still shares the table of the
    embedding. Raises UsageError before any work when the plan does not fit the model, BadInput when
    a rounding that needs curvature gets none.
    """
    structure.check_language_model(model)
    layer_plans = plan_layers(Anatomy.of(model), plan)
    records = []
    results = solve_all(model, layer_plans, rounding, (factors or {}).get, transform)
    for result in track(results, "quantize", len(layer_plans), listener):
        install(model, result, None if transform is None else transform.output)
        records.append(result.record)
    share_inputs(model)
    _describe_in_config(model)
    return records


def _describe_in_config(model: nn.Module) -> None:
    """Put the description of the compressed layers into the model's transformers configuration, so
    that the folder that `model.save_pretrained` writes can be loaded.
    """
    config, description = getattr(model, "config", None), description_of(model)
    if config is not None and description is not None:
        config.quantization_config = description.to_dict()


def solve_all(
    model: nn.Module,
    layer_plans: list[LayerPlan],
    rounding: Rounding,
    get_factors: GetFactors,
    transform: Hadamard | None,
) -> Iterator[LayerResult]:
    """Yield the result of each layer. Its weights are read when the caller asks for the result."""
    for layer_plan in layer_plans:
        weight = model.get_submodule(layer_plan.name).weight
        factors = None if layer_plan.curvature is None else get_factors(layer_plan.curvature)
        yield solve_layer(layer_plan, weight.detach(), rounding, factors, transform)


def install(model: nn.Module, result: LayerResult, output_rotation: str | None) -> None:
    """Replace the dense layer of `model` by its compressed form, and tie the head to it if the head
    shared its table.
    """
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
