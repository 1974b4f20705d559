"""A packed folder gives back the very model that was saved; a damaged one gives an error instead of
a model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from featherweight.base.errors import BadInput, UsageError
from featherweight.interchange.packed import folder as packed
from featherweight.interchange.source import Source
from featherweight.models.tensors import write_shard
from featherweight.quantization.formats import Int, Ternary, Trellis
from featherweight.quantization.formats.base import Format
from featherweight.quantization.layers import TiedHead, compressed_layers, keep_decoded
from featherweight.quantization.layouts.description import StoredMatrix

Run = Callable[..., Any]
Tensors = dict[str, torch.Tensor]
Q = "model.layers.1.self_attn.q_proj"


@torch.no_grad()
def logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    return model(ids).logits


@pytest.mark.parametrize("make", tiny.ALL, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("format", "output"),
    [
        (Int(bits=4), "none"),
        (Int(bits=3, symmetric=False), "block64"),
        (Trellis(bits=2), "none"),
        (Ternary(), "none"),
    ],
    ids=repr,
)
def test_every_family_comes_back_bit_for_bit(
    make: Run, format: Format, output: str, compress: Run, tmp_path: Path, ids: torch.Tensor
) -> None:
    model, tokenizer = make()
    original = logits(model, ids)
    before = logits(compress(model, format, output), ids)
    assert not torch.equal(before, original)
    loaded = packed.load(packed.save(model, tmp_path / "out", tokenizer))
    assert torch.equal(logits(loaded, ids), before)
    with keep_decoded(loaded):
        assert torch.equal(logits(loaded, ids), before)
    assert list(compressed_layers(loaded)) == list(compressed_layers(model))
    assert isinstance(loaded.lm_head, TiedHead) == model.config.tie_word_embeddings
    assert not loaded.training


@pytest.mark.parametrize(
    ("make", "output"),
    [(tiny.llama, "full"), (tiny.qwen3, "none"), (tiny.gemma3, "none"), (tiny.odd, "none")],
)
def test_rotated_tables_come_back_bit_for_bit(
    make: Run, output: str, compress: Run, tmp_path: Path, ids: torch.Tensor
) -> None:
    model = compress(make()[0], Int(bits=4), output, Int(bits=4))
    before = logits(model, ids)
    packed.save(model, tmp_path / "out")
    layers = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"][
        "layers"
    ]
    for name in {"model.embed_tokens", "lm_head"} & set(layers):
        assert layers[name]["input_rotation"] and layers[name]["output_rotation"] == "none"
    loaded = packed.load(tmp_path / "out")
    through = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(loaded, ids), before)
    assert torch.equal(logits(through, ids), before)
    with keep_decoded(loaded):
        assert torch.equal(logits(loaded, ids), before)
    through.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(packed.load(tmp_path / "again"), ids), before)


def test_tables_of_older_files_are_not_rotated(
    small: Path, change_config: Run, ids: torch.Tensor
) -> None:
    before = logits(packed.load(small), ids)
    change_config(
        small,
        lambda c: c["quantization_config"]["layers"]["model.embed_tokens"].pop("input_rotation"),
    )
    loaded = packed.load(small)
    assert not loaded.model.embed_tokens.input_rotation
    assert torch.equal(logits(loaded, ids), before)


def test_bfloat16_changes_activations_only(small: Path, ids: torch.Tensor) -> None:
    half, single = packed.load(small, torch.bfloat16), packed.load(small)
    state = half.state_dict()
    for name, tensor in single.state_dict().items():
        if name.rsplit(".", 1)[1] in ("codes", "scale", "input_signs"):
            assert torch.equal(state[name], tensor)
            assert state[name].dtype == tensor.dtype
        else:
            assert state[name].dtype == torch.bfloat16
    answer = logits(half, ids)
    assert answer.dtype == torch.bfloat16
    exact = logits(single, ids)
    assert float((answer.float() - exact).norm() / exact.norm()) < 0.05


def test_the_same_model_gives_the_same_bytes(compress: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        packed.save(compress(tiny.qwen3()[0], Int(bits=4)), tmp_path / name, recipe={"bits": 4})
    for file in ("model.safetensors", "config.json", "recipe.yaml", "generation_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_table_is_stored_once(small: Path) -> None:
    names = set(load_file(small / "model.safetensors"))
    assert not any(name.startswith("lm_head") for name in names)
    assert {
        "model.embed_tokens.codes",
        "model.embed_tokens.scale",
        "model.embed_tokens.weight",
    } <= names
    description = json.loads((small / "config.json").read_text())["quantization_config"]
    assert description["tied_head"] == "lm_head"
    assert description["layers"][Q] == {
        "format": "Int(bits=4)",
        "shape": [64, 64],
        "input_rotation": True,
        "output_rotation": "none",
    }


def test_a_loaded_model_can_be_saved_again(small: Path, tmp_path: Path) -> None:
    again = packed.save(packed.load(small), tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()


def test_save_refuses_and_leaves_nothing(small: Path, tmp_path: Path) -> None:
    model = packed.load(small)
    with pytest.raises(UsageError, match="exists"):
        packed.save(model, small)
    with pytest.raises(UsageError, match="not a plain file name"):
        packed.save(model, tmp_path / "x", extra_files={"../escape": b""})
    with pytest.raises(UsageError, match="nothing in this model is compressed"):
        packed.save(tiny.llama()[0], tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    packed.save(model, small, extra_files={"note.txt": "hello"}, overwrite=True)
    assert (small / "note.txt").read_text() == "hello"
    assert packed.is_packed(small)
    assert not packed.is_packed(tmp_path)


def parts_of(folder: Path, out: Path) -> tuple[dict[str, StoredMatrix], list[Path]]:
    """What a streamed run leaves for a model that is packed in `folder`: a file of stored tensors
    for each layer.
    """
    tensors, layers, parts = load_file(folder / "model.safetensors"), {}, []
    for name, layer in compressed_layers(packed.load(folder)).items():
        layers[name] = StoredMatrix(layer.format, layer.shape, layer.input_rotation)
        write_shard(
            out / f"{name}.safetensors",
            {f"{name}.{key}": tensors[f"{name}.{key}"] for key in layers[name].stored()},
        )
        parts.append(out / f"{name}.safetensors")
    return layers, parts


def test_assembling_parts_equals_saving(small: Path, tmp_path: Path) -> None:
    source = tiny.save(*tiny.llama(), tmp_path / "source")
    (source / "tokenizer_config.json").write_text('{"odd":  "spacing"}')
    (out := tmp_path / "out.partial").mkdir()
    layers, parts = parts_of(small, tmp_path)
    sums = packed.assemble(
        out,
        Source("light", source),
        layers,
        parts,
        tied_head="lm_head",
        extra_files={"recipe.yaml": "bits: 4\n"},
    )
    assert (out / "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()
    assert list(sums) == ["model.safetensors"]
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (out / file).read_bytes() == (source / file).read_bytes()
    assert (out / "recipe.yaml").read_text() == "bits: 4\n"


def test_assembling_in_shards(small: Path, tmp_path: Path, ids: torch.Tensor) -> None:
    source = tiny.save(*tiny.llama(), tmp_path / "source")
    (out := tmp_path / "out").mkdir()
    sums = packed.assemble(
        out, Source("light", source), *parts_of(small, tmp_path), tied_head="lm_head", limit=20_000
    )
    assert len(sums) > 2
    assert torch.equal(logits(packed.load(out), ids), logits(packed.load(small), ids))
    next(iter(sorted(out.glob("model-00002*")))).unlink()
    with pytest.raises(BadInput, match="model-00002"):
        packed.load(out)


def test_assembling_refuses_incomplete_parts(small: Path, tmp_path: Path) -> None:
    source = tiny.save(*tiny.llama(), tmp_path / "source")
    (out := tmp_path / "out").mkdir()
    layers, parts = parts_of(small, tmp_path)
    with pytest.raises(BadInput, match="no part holds tensor .*scale|no part holds tensor .*codes"):
        packed.assemble(out, Source("light", source), layers, parts[1:], tied_head="lm_head")
    write_shard(tmp_path / "stray.safetensors", {"stray": torch.ones(1)})
    with pytest.raises(BadInput, match="tensor stray, which belongs to no layer"):
        packed.assemble(
            out,
            Source("light", source),
            layers,
            [*parts, tmp_path / "stray.safetensors"],
            tied_head="lm_head",
        )
    wrong = {**layers, Q: StoredMatrix(Int(bits=4), (64, 128), True)}
    with pytest.raises(BadInput, match=f"{Q}.weight is"):
        packed.assemble(out, Source("light", source), wrong, parts, tied_head="lm_head")
    bits = {**layers, Q: StoredMatrix(Int(bits=5), (64, 64), True)}
    with pytest.raises(BadInput, match=f"tensor {Q}.codes is"):
        packed.assemble(out, Source("light", source), bits, parts, tied_head="lm_head")


DAMAGE: list[tuple[Callable[[Tensors], object], str]] = [
    (lambda t: t.pop(f"{Q}.codes"), f"{Q}.codes is missing"),
    (lambda t: t.pop(f"{Q}.input_signs"), f"{Q}.input_signs is missing"),
    (lambda t: t.pop("model.embed_tokens.scale"), "model.embed_tokens.scale is missing"),
    (lambda t: t.pop("model.layers.0.input_layernorm.weight"), "input_layernorm.weight"),
    (lambda t: t.pop(f"{Q}.weight"), f"{Q}.weight"),
    (
        lambda t: t.update({f"{Q}.zero": torch.ones(4, dtype=torch.uint8)}),
        f"{Q}.zero is not stored by",
    ),
    (lambda t: t.update({"model.extra": torch.ones(4)}), "model.extra is not one of this model's"),
    (lambda t: t.update({f"{Q}.codes": t[f"{Q}.codes"][:-32]}), f"{Q}.codes is torch.uint8"),
    (lambda t: t.update({f"{Q}.scale": t[f"{Q}.scale"].float()}), f"{Q}.scale is torch.float32"),
    (lambda t: t.update({f"{Q}.weight": torch.ones(64, 64)}), f"{Q}.weight is torch.float32"),
    (
        lambda t: t.update({"model.norm.weight": torch.ones(65)}),
        "model.norm.weight is torch.float32 .65., not",
    ),
    (
        lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int32)}),
        "model.norm.weight is torch.int32",
    ),
    (lambda t: t[f"{Q}.scale"].view(-1)[5].fill_(float("nan")), f"{Q}.scale holds 1 non-finite"),
    (
        lambda t: t["model.norm.weight"][0].fill_(float("inf")),
        "model.norm.weight holds 1 non-finite",
    ),
]


@pytest.mark.parametrize(("edit", "message"), DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_name(
    edit: Callable[[Tensors], object], message: str, small: Path, tamper: Run
) -> None:
    tamper(small, edit)
    with pytest.raises(BadInput, match=message):
        packed.load(small)


def test_codes_that_mean_nothing_are_refused(tmp_path: Path, compress: Run, tamper: Run) -> None:
    packed.save(compress(tiny.llama()[0], Ternary(group=16)), tmp_path / "out")
    packed.load(tmp_path / "out")
    tamper(tmp_path / "out", lambda t: t[f"{Q}.codes"].fill_(255))
    with pytest.raises(BadInput, match=f"{Q} holds code 3"):
        packed.load(tmp_path / "out")


def test_one_flipped_bit_is_found(small: Path) -> None:
    file = small / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        BadInput, match=r"model\.safetensors was altered or is incomplete: its SHA-256"
    ):
        packed.load(small)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(small: Path, length: int) -> None:
    file = small / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        packed.load(small)


def test_missing_files_are_named(small: Path, tmp_path: Path) -> None:
    (small / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="small holds no weights"):
        packed.load(small)
    with pytest.raises(BadInput, match=r"config\.json cannot be read"):
        packed.load(tmp_path / "nowhere")
    (small / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"config\.json is not JSON"):
        packed.load(small)


CONFIGS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c["quantization_config"].update(version=2), r"config\.json is written in version 2"),
    (
        lambda c: c["quantization_config"]["layers"][Q].update(format="Int(bits=5)"),
        f"tensor {Q}.codes is",
    ),
    (lambda c: c["quantization_config"]["layers"].pop(Q), f"{Q}"),
    (
        lambda c: c["quantization_config"]["layers"][Q].update(input_rotation=False),
        f"{Q}.input_signs is not stored",
    ),
    (lambda c: c["quantization_config"].update(tied_head=None), "lm_head.weight shares"),
    (
        lambda c: c["quantization_config"].update(files={"other.safetensors": "00"}),
        r"other\.safetensors is missing",
    ),
    (lambda c: c.pop("quantization_config"), "not a model that it packed"),
    (lambda c: c.update(model_type="nonsense"), "does not describe a model"),
    (lambda c: c.update(num_hidden_layers=1), r"describes model\.layers\.1.*does not have"),
    (lambda c: c.update(hidden_size=128), "in this model it is"),
]


@pytest.mark.parametrize(("edit", "message"), CONFIGS)
def test_a_config_that_does_not_fit_is_refused(
    edit: Callable[[dict[str, Any]], object], message: str, small: Path, change_config: Run
) -> None:
    change_config(small, edit)
    with pytest.raises(BadInput, match=message):
        packed.load(small)


def test_random_damage_never_gives_a_model(
    small: Path, change_config: Run, ids: torch.Tensor
) -> None:
    """Bytes of the header changed at random, sums forgotten: an error that names the folder, or the
    very same model.
    """
    change_config(small, lambda config: config["quantization_config"].pop("files"))
    file = small / "model.safetensors"
    data, expected = file.read_bytes(), logits(packed.load(small), ids)
    header = 8 + int.from_bytes(data[:8], "little")
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        changed = bytearray(data)
        where = int(torch.randint(0, header, (), generator=generator))
        changed[where] = int(torch.randint(0, 256, (), generator=generator))
        file.write_bytes(changed)
        try:
            model = packed.load(small)
        except BadInput:
            continue
        assert torch.equal(logits(model, ids), expected)
