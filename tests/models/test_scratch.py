"""The small Llama of all experiments learns, survives a folder, and can be quantized, whatever its
parts are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention

from featherweight import data
from featherweight.base.errors import BadInput, UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference import generate
from featherweight.interchange import load, save
from featherweight.models import observe, scratch
from featherweight.models.anatomy import Anatomy
from featherweight.models.scratch import scratch_model
from featherweight.ops import library
from featherweight.quantization.formats import Int
from featherweight.quantization.pipeline import quantize
from featherweight.quantization.plans import Plan
from featherweight.quantization.rounding import Nearest
from featherweight.workflows.engines import open_engine

IDS = torch.tensor([list(b"a feather weighs little")])


class DynamicTanh(nn.Module):
    """A norm without statistics (Zhu et al. 2025)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.alpha, self.weight = nn.Parameter(torch.tensor([0.7])), nn.Parameter(torch.ones(width))

    def forward(self, x: Any) -> Any:
        return self.weight * torch.tanh(self.alpha * x)


class MyEmbedding(nn.Embedding):
    """The same look-up."""


class MyLinear(nn.Linear):
    """Computes the same product."""


class Doubled(nn.Linear):
    def forward(self, input: Any) -> Any:
        return 2 * super().forward(input)


class MyAttention(LlamaAttention):
    """Ignores positions."""

    def forward(self, hidden_states: Any, position_embeddings: Any, **arguments: Any) -> Any:
        cos, sin = position_embeddings
        flat = torch.ones_like(cos), torch.zeros_like(sin)
        return super().forward(hidden_states, position_embeddings=flat, **arguments)


PARTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"is_tied": False, "key_heads": 2, "attention": "eager"},
    "norm": {"norm": DynamicTanh},
    "linear": {"linear": MyLinear},
    "all": {
        "norm": DynamicTanh,
        "linear": MyLinear,
        "embedding": MyEmbedding,
        "attention": MyAttention,
    },
}


def model(name: str, **settings: Any) -> Any:
    return scratch_model(259, 64, 2, 4, **PARTS[name], **settings)


def logits(network: Any) -> Any:
    with torch.no_grad():
        return network.eval()(IDS).logits


@pytest.mark.parametrize("name", ["plain", "linear"])
def test_it_learns_in_seconds(name: str) -> None:
    text = torch.tensor(list(data.text("wikitext2_test")[:40_000].encode())).clamp(max=255)
    share = torch.bincount(text).double() / len(text)
    unigram = float(torch.special.entr(share).sum())
    network, losses = scratch_model(259, 32, 2, 2, **PARTS[name]), []
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        starts = torch.randint(len(text) - 65, (8,), generator=generator)
        batch = torch.stack([text[start : start + 65] for start in starts.tolist()])
        loss = network(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) / 5 < unigram - 0.2


@pytest.mark.parametrize("name", PARTS)
def test_a_folder_keeps_the_logits(name: str, tmp_path: Path) -> None:
    network, tokenizer = model(name), data.byte_tokenizer()
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = load(tmp_path)
    assert type(loaded) is type(network)
    # `load` leaves the attention implementation to transformers, and "eager" sums in another order.
    atol = 1e-5 if name == "untied" else 0
    torch.testing.assert_close(logits(loaded), logits(network), rtol=0, atol=atol)


@pytest.mark.parametrize("name", PARTS)
def test_it_is_quantized_observed_and_saved(name: str, tmp_path: Path) -> None:
    network, tokenizer = model(name), data.byte_tokenizer()
    anatomy = Anatomy.of(network)
    assert len(anatomy.block_linears) == 14 and not anatomy.weights_read
    assert len(set(anatomy.input_keys.values())) == 8
    inputs: list[Any] = []
    places = observe.sites(network, "input")
    observe.observe(network, IDS, places[:2], lambda site, value, gradient: inputs.append(value))
    assert inputs[0].shape[-1] == 64
    before = logits(network)
    quantize(network, Nearest(), Plan({"*": Int(bits=8)}))
    after = logits(network)
    assert not torch.equal(after, before)
    assert float((after - before).abs().max()) < 0.05 * float(before.abs().max())
    save(network, tmp_path / "out", tokenizer)
    loaded, _ = load(tmp_path / "out")
    torch.testing.assert_close(logits(loaded), after)


@pytest.mark.skipif(library.library() is None, reason="no native library")
def test_the_native_engine_runs_it_with_its_tokenizer(tmp_path: Path) -> None:
    network, tokenizer = model("plain"), data.bpe_tokenizer("the feather and the wind " * 9, 262)
    network.resize_token_embeddings(262, mean_resizing=False)
    quantize(network, Nearest(), Plan({"*": Int(bits=8)}))
    save(network, tmp_path / "out", tokenizer)
    engine, chat = open_engine(tmp_path / "out", "native")
    prompt = tokenizer("the feather").input_ids
    answer = generate(engine, chat, prompt, Sampling(max_tokens=8, seed=0))
    assert 1 <= len([token for delta in answer for token in delta.tokens]) <= 8
    engine.close()


def test_parts_share_the_weights_of_a_seed() -> None:
    plain, other = model("plain", seed=3), model("norm", seed=3)
    weight = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(plain.get_parameter(weight), other.get_parameter(weight))
    assert not torch.equal(plain.get_parameter(weight), model("plain").get_parameter(weight))
    assert type(plain) is LlamaForCausalLM and type(other) is scratch.ScratchForCausalLM
    state = torch.random.get_rng_state()
    model("all")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_linear_that_is_no_product_is_left_out_of_the_anatomy() -> None:
    anatomy = Anatomy.of(scratch_model(259, 64, 2, 4, linear=Doubled))
    assert not anatomy.block_linears and len(anatomy.weights_read) == 14


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(nn.Module):
        pass

    with pytest.raises(UsageError, match="top of a module"):
        scratch_model(259, norm=Local)
    for shape in ((259, 65, 2, 4), (259, 12, 2, 4)):
        with pytest.raises(UsageError, match="multiple"):
            scratch_model(*shape)
    model("norm").save_pretrained(tmp_path)
    data.byte_tokenizer().save_pretrained(tmp_path)
    monkeypatch.delattr(f"{__name__}.DynamicTanh")
    with pytest.raises(BadInput, match="has not imported"):
        load(tmp_path)
