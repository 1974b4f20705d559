"""The ledger adds up, layers find their places, the sentence says only what is known."""

from __future__ import annotations

import pytest

from featherweight.quantization.evidence import layers, sizes
from featherweight.quantization.evidence.layers import Position
from featherweight.quantization.evidence.verdict import verdict


def test_the_ledger_adds_up_and_keeps_tables_apart(sample):
    shares = {share.kind: share.num_bytes for share in sizes.shares(sample)}
    table = sample["layers"][-1]["bits"]
    inside = sum(layer["bits"]["codes"] for layer in sample["layers"][:-1]) / 8
    assert sum(shares.values()) == pytest.approx(sample["size"]["file_bytes"])
    assert shares["embedding"] == sum(table.values()) / 8
    assert shares["codes"] == inside
    assert shares["other"] == sample["size"]["bytes"]["other"]


def test_a_ledger_that_counts_blocks_only_has_its_tables_in_the_rest(sample):
    spent, table = sample["size"]["bytes"], sample["layers"][-1]["bits"]
    whole = {share.kind: share.num_bytes for share in sizes.shares(sample)}
    for kind in ("codes", "scales"):
        spent[kind] -= table[kind] // 8
        spent["other"] += table[kind] // 8
    assert {share.kind: share.num_bytes for share in sizes.shares(sample)} == pytest.approx(whole)


def test_an_explicit_share_of_tables_is_taken(sample):
    sample["size"]["bytes"]["embedding"] = 12
    shares = {share.kind: share.num_bytes for share in sizes.shares(sample)}
    assert shares["embedding"] == 12 and shares["codes"] == sample["size"]["bytes"]["codes"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.7.mlp.down_proj", Position(7, "mlp.down_proj")),
        ("transformer.h.0.attn.c_proj", Position(0, "attn.c_proj")),
        ("model.layers.2.mlp.experts.11.up_proj", Position(2, "mlp.experts.*.up_proj")),
        ("model.embed_tokens", None),
        ("lm_head", None),
    ],
)
def test_places(name, expected):
    assert layers.position(name) == expected


def test_the_verdict_says_what_is_known(sample):
    sentence = verdict(sample).replace("\u00a0", " ")
    assert sentence.startswith(
        "SmolLM2-135M-Instruct now takes 68.7 MB instead of 269.1 MB (16 bits a weight): "
        "its most likely next "
    )
    assert (
        sentence.endswith("goes from 19.87 to 21.93.")
        and "95 % interval 0.0896 to 0.0993" in sentence
    )
    del sample["quality"]["kl"], sample["quality"]["top1"]
    assert "KL" not in verdict(sample)
    del sample["quality"]
    assert verdict(sample).endswith("what that cost was not measured.")
    assert verdict({}) == "The model was compressed; what that cost was not measured."


def test_formats_and_bits(sample):
    assert layers.formats(sample) == "210 layers in Trellis(bits=3), 1 in Int(bits=8)"
    assert sizes.bits_per_weight(sample["layers"][0]) == pytest.approx(3 + 16 / 576 + 1 / 576)
    assert sizes.bits_per_weight({}) is None


def test_how_a_layer_was_solved(sample):
    assert layers.solved_by(sample["layers"][0]) == "YAQA, gate 0.841, damping 0.01/0.5"
    assert (
        layers.solved_by(sample["layers"][6])
        == "YAQA, gate 1.07, damping 0.01, output side left out"
    )
    assert layers.solved_by({}) == "–"
