"""The ledger adds up, layers find their places, the sentence says only what is known."""

from __future__ import annotations

import pytest

from featherweight.quantization.evidence import layers, sizes
from featherweight.quantization.evidence.layers import Position
from featherweight.quantization.evidence.verdict import missing_measurements, verdict


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


PUBLISHED = {"published_dtype": "bfloat16", "published_bytes": 269_030_016, "published_bits": 16.0}
CONVERTED = {"source_file_bytes": 538_090_432, "source_bits": 32.0}


def test_the_verdict_compares_with_what_was_published(sample):
    sample["model"] |= PUBLISHED | CONVERTED
    sentence = verdict(sample).replace("\u00a0", " ")
    assert "instead of 269.0 MB (bfloat16 as published, 16 bits a weight): " in sentence
    assert "538" not in sentence
    sample["model"] |= {"source_file_bytes": 269_060_552, "source_bits": 16.0}
    sentence = verdict(sample).replace("\u00a0", " ")
    assert "instead of 269.1 MB (bfloat16, 16 bits a weight): " in sentence


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        ({}, []),
        (CONVERTED, ["original"]),
        (PUBLISHED, ["original"]),
        (PUBLISHED | CONVERTED, ["as published", "source file"]),
        (PUBLISHED | {"source_file_bytes": 269_060_552}, ["original"]),
        ({"published_bytes": "?", "published_dtype": [1]} | CONVERTED, ["original"]),
        ({"published_bytes": 0, "source_file_bytes": 0}, ["original"]),
    ],
)
def test_one_size_or_two(model, labels):
    assert [size.label for size in sizes.original_sizes({"model": model})] == labels


def test_an_unknown_kind_gets_a_share_under_its_own_name(sample):
    spent = sample["size"]["bytes"]
    spent |= {"low_rank": 4000, "outlier_rows": 3000, "other": spent["other"] - 7000}
    labels = {share.kind: share.label for share in sizes.shares(sample)}
    assert labels["low_rank"] == "low-rank factors" and labels["outlier_rows"] == "outlier rows"
    assert list(labels)[-2:] == ["embedding", "other"]
    total = sum(share.num_bytes for share in sizes.shares(sample))
    assert total == pytest.approx(sample["size"]["file_bytes"])


def test_an_unknown_kind_counts_as_bits_of_its_layer(sample):
    layer = sample["layers"][0]
    bits = sizes.bits_per_weight(layer)
    layer["bits"]["outlier_rows"] = layer["weights"]
    assert sizes.bits_per_weight(layer) == pytest.approx(bits + 1)


def test_what_was_not_measured_follows_from_the_results(sample):
    names = missing_measurements(sample)
    assert names == [
        "tasks",
        "speed",
        "other texts and languages",
        "the noise floor of another dtype",
        "the KL of some blocks",
    ]
    sample["quality"] |= {
        "tasks": {"gsm8k": 0.1},
        "others": [sample["quality"]],
        "kl_noise_floor": 1e-4,
    }
    sample["speed"] = {"decode": 40.0}
    for layer in sample["layers"][:-1]:
        layer["kl_block"] = 0.1
    assert missing_measurements(sample) == []
    for layer in sample["layers"]:
        layer["kl_block"] = None
    sample["samples"], sample["free_running"] = [], {}
    names = ["free answers", "answers to a question", "the KL of single blocks"]
    assert missing_measurements(sample) == names
    assert "perplexity" in missing_measurements({}) and "speed" in missing_measurements({})


def test_the_verdict_warns_of_a_model_that_fails_to_talk(sample):
    assert "Warning" not in verdict(sample)
    rates = sample["free_running"]["rates"]
    rates["loops"] |= {"light": 0.6, "flag": True}
    rates["empty"]["flag"] = True
    sentence = verdict(sample).replace("\u00a0", " ")
    assert sentence.endswith(
        "Warning: in free answers it repeats itself in a loop on 60.0 % of 100 prompts; the "
        "original on 21.0 %. Warning: in free answers it answers nothing on 0.0 % of 100 prompts; "
        "the original on 0.0 %."
    )
    assert "Warning" in verdict({"free_running": {"rates": rates}})
