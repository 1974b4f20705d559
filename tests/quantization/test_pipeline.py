"""Tables under 8 bits are rotated and rounded with the Gram of the head's input; at 8 bits they are
what they always were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch

import featherweight as fw
from featherweight.models.anatomy import Anatomy
from featherweight.quantization.pipeline import plan_layers

TABLE = "model.embed_tokens"
ROTATED = fw.Hadamard()


def run(
    make: Callable[[], Any], table: Any, rounding: Any, transform: Any = ROTATED
) -> tuple[Any, dict[str, Any]]:
    """(model, records by name), linears nearly exact, so that the table makes the error."""
    model, _ = make()
    tokens = torch.randint(3, 300, (16, 24), generator=torch.Generator().manual_seed(0))
    factors = fw.Gram().collect(model, tokens)
    plan = fw.Plan({TABLE: table, "lm_head": table, "*": fw.Int(bits=8)})
    records = fw.quantize(model, rounding, plan, factors, transform)
    return model, {record["name"]: record for record in records}


@pytest.mark.parametrize("make", [tiny.llama, tiny.qwen3])
def test_a_coarse_table_is_rounded_for_the_head(make: Callable[[], Any]) -> None:
    name = TABLE if make is tiny.llama else "lm_head"
    errors = {}
    for rounding in (fw.LDLQ(), fw.Nearest()):
        model, records = run(make, fw.Int(bits=3), rounding)
        errors[repr(rounding)] = records[name]["error_weighted"]
        assert records[name]["rounding"] == repr(rounding)
        assert model.get_submodule(name).input_rotation
    assert errors["LDLQ(damp=0.01)"] < 0.9 * errors["Nearest()"]


def test_an_embedding_alone_is_rotated_and_rounded_to_nearest() -> None:
    model, records = run(tiny.qwen3, fw.Int(bits=4), fw.LDLQ())
    assert records[TABLE]["rounding"] == "Nearest()"
    assert model.model.embed_tokens.input_rotation
    assert records["lm_head"]["rounding"] == "LDLQ(damp=0.01)"
    assert model.lm_head.input_rotation


@pytest.mark.parametrize("make", [tiny.llama, tiny.qwen3])
def test_tables_of_8_bits_stay_as_they_are(make: Callable[[], Any]) -> None:
    model, records = run(make, fw.Int(bits=8), fw.LDLQ(), fw.Hadamard(output="full"))
    original = make()[0]
    for name in {TABLE, "lm_head"} & set(records):
        assert (
            records[name]["rounding"] == "Nearest()"
            and not model.get_submodule(name).input_rotation
        )
        torch.testing.assert_close(
            model.get_submodule(name).dense(),
            original.get_submodule(name).weight.data,
            rtol=0,
            atol=0.006,
        )


def test_without_a_transform_nothing_is_rotated() -> None:
    model, records = run(tiny.llama, fw.Int(bits=4, group=32), fw.LDLQ(), None)
    assert records[TABLE]["rounding"] == "LDLQ(damp=0.01)"
    assert not model.model.embed_tokens.input_rotation


def test_a_rotated_model_is_near_the_original() -> None:
    ids = torch.arange(40).view(1, -1)
    for make in (tiny.llama, tiny.gemma3):
        with torch.no_grad():
            before = make()[0](ids).logits
            after = run(make, fw.Int(bits=7), fw.Nearest())[0](ids).logits
        assert float((after - before).norm() / before.norm()) < 0.05


def test_what_a_table_is_rounded_with() -> None:
    coarse = {
        layer_plan.name: layer_plan.curvature
        for layer_plan in plan_layers(Anatomy.of(tiny.llama()[0]), fw.Plan({"*": fw.Int(bits=4)}))
    }
    assert coarse[TABLE] == "lm_head"
    fine = {
        layer_plan.name: layer_plan.curvature
        for layer_plan in plan_layers(Anatomy.of(tiny.llama()[0]), fw.Plan({"*": fw.Int(bits=8)}))
    }
    assert (
        fine[TABLE] is None and fine["model.layers.0.mlp.up_proj"] == "model.layers.0.mlp.up_proj"
    )
