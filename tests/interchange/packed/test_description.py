"""What config.json says is read back exactly, and nothing that it should not say is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import tiny

from featherweight.base.errors import BadInput, UsageError
from featherweight.interchange.packed import description as descriptions
from featherweight.quantization.formats import Int, Trellis
from featherweight.quantization.layouts.description import Description, StoredMatrix
from featherweight.quantization.layouts.trellis import MATRICES

LAYERS = {
    "model.embed_tokens": StoredMatrix(Int(bits=8), (300, 64)),
    "model.layers.0.mlp.up_proj": StoredMatrix(Trellis(bits=2), (128, 64), True, "block64"),
}
GOOD = Description(LAYERS, "lm_head", {"model.safetensors": "00ff"})


def test_round_trip_through_json() -> None:
    assert descriptions.read(json.loads(json.dumps(GOOD.to_dict()))) == GOOD


def test_stored_tensors_include_signs() -> None:
    stored = LAYERS["model.layers.0.mlp.up_proj"].stored()
    assert stored["input_signs"] == ((8,), "U8")
    assert stored["output_signs"] == ((16,), "U8")
    assert "input_signs" not in LAYERS["model.embed_tokens"].stored()
    assert StoredMatrix(Int(bits=4), (300, 64), True).stored()["input_signs"] == ((8,), "U8")


def test_the_code_is_written_out() -> None:
    constants = GOOD.to_dict()["codes"]["Trellis(bits=2)"]
    assert constants["matrix"] == list(MATRICES[2, 12])
    assert len(constants["table"]) == 256


def layer(plain: dict[str, Any]) -> dict[str, Any]:
    return plain["layers"]["model.layers.0.mlp.up_proj"]


BROKEN: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda p: p.update(quant_method="gptq"), "not a model that it packed"),
    (lambda p: p.update(version=2), "a newer one is needed"),
    (lambda p: p.update(version="1"), "version '1'"),
    (lambda p: p.update(version=True), "version True"),
    (lambda p: p.pop("version"), "version None"),
    (lambda p: p.update(layers={}), "lists no layers"),
    (lambda p: p.update(layers=[1]), "lists no layers"),
    (lambda p: p["layers"].update({"model.embed_tokens": 3}), "layer model.embed_tokens is 3"),
    (
        lambda p: layer(p).update(format="Trellis(bits=9)"),
        "up_proj has a format.*bits must be 1, 2, 3 or 4",
    ),
    (lambda p: layer(p).update(format="Tresil(bits=2)"), "did you mean 'Trellis'"),
    (lambda p: layer(p).update(format="__import__('os').getcwd()"), "up_proj has a format"),
    (lambda p: layer(p).update(format="3"), "not a format"),
    (lambda p: layer(p).update(format="Int(bits=4, group=48)"), "not a multiple of group=48"),
    (lambda p: layer(p).update(shape=[128]), "has shape"),
    (lambda p: layer(p).update(shape=[128, -64]), "has shape"),
    (lambda p: layer(p).update(shape=[1 << 40, 1 << 40]), "more weights than any matrix has"),
    (lambda p: layer(p).update(output_rotation="sideways"), "unknown rotation"),
    (lambda p: layer(p).update(input_rotation="yes"), "unknown rotation"),
    (lambda p: p.update(tied_head=3), "tied_head is 3"),
    (lambda p: p.update(files={"../model.safetensors": "00"}), "files must map"),
    (lambda p: p.update(files={"model.safetensors": 3}), "files must map"),
    (lambda p: p.update(files=[]), "files must map"),
    (
        lambda p: p["codes"]["Trellis(bits=2)"]["table"].__setitem__(7, 1),
        r"code tables of Trellis\(bits=2\) differ",
    ),
    (lambda p: p.update(codes={}), r"code tables of Trellis\(bits=2\) differ"),
    (lambda p: p.update(codes=None), "code tables"),
]


@pytest.mark.parametrize(("edit", "message"), BROKEN)
def test_what_is_wrong_is_said(edit: Callable[[dict[str, Any]], object], message: str) -> None:
    plain = json.loads(json.dumps(GOOD.to_dict()))
    edit(plain)
    with pytest.raises(BadInput, match=message):
        descriptions.read(plain)


@pytest.mark.parametrize("plain", [None, 3, [], "featherweight"])
def test_something_else_is_no_description(plain: Any) -> None:
    with pytest.raises(BadInput, match="not a model that it packed"):
        descriptions.read(plain)


def test_install_refuses_what_the_model_does_not_have() -> None:
    for name, entry, message in (
        (
            "model.layers.7.mlp.up_proj",
            StoredMatrix(Int(bits=4), (128, 64)),
            "which this model does not have",
        ),
        ("model.norm", StoredMatrix(Int(bits=4), (64, 64)), "which is a LlamaRMSNorm"),
        ("model.layers.0.mlp.up_proj", StoredMatrix(Int(bits=4), (64, 128)), "in this model it is"),
        (
            "model.embed_tokens",
            StoredMatrix(Int(bits=4), (300, 64), True, "full"),
            "which is an embedding",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            descriptions.install(tiny.llama()[0], Description({name: entry}))
    up = {"model.layers.0.mlp.up_proj": StoredMatrix(Int(bits=4), (128, 64))}
    with pytest.raises(BadInput, match="0 compressed embeddings have its shape"):
        descriptions.install(tiny.llama()[0], Description(up, "lm_head"))


def test_a_dense_model_has_no_description() -> None:
    with pytest.raises(UsageError, match="nothing in this model is compressed"):
        descriptions.of_model(tiny.llama()[0])
