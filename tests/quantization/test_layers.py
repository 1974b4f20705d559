"""Compressed modules compute what a dense layer of the same weights computes, and keep their bytes
whatever happens.
"""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import pytest
import torch
from random_weights import random_qweight
from torch import Tensor, nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from featherweight.base.errors import UsageError
from featherweight.models.tensors import DTYPES
from featherweight.quantization import layers
from featherweight.quantization.formats import Int, Trellis
from featherweight.quantization.formats.base import Format, QWeight
from featherweight.quantization.layers import (
    CompressedEmbedding,
    CompressedLinear,
    TiedHead,
    keep_decoded,
    share_inputs,
)
from featherweight.quantization.transforms import activations
from featherweight.quantization.transforms.hadamard import Hadamard, pack_signs

ROTATIONS = ("none", "block64", "full")
INT = Int(bits=8)


def linear(
    outputs: int = 96,
    inputs: int = 80,
    format: Format = INT,
    bias: bool = False,
    rotated: bool = True,
    output_rotation: str = "none",
) -> CompressedLinear:
    """A filled layer with random codes and signs."""
    layer = CompressedLinear(inputs, outputs, format, bias, rotated, output_rotation)
    tensors = dict(random_qweight(format, (outputs, inputs)).tensors)
    if rotated:
        tensors["input_signs"] = pack_signs(torch.randn(inputs).sign())
    if output_rotation != "none":
        tensors["output_signs"] = pack_signs(torch.randn(outputs).sign())
    layer.fill(tensors)
    if bias:
        nn.init.normal_(layer.bias)
    return layer


@pytest.fixture
def rotations(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The tensors that were rotated, in order."""
    seen: list[Tensor] = []
    original = activations.rotate

    def counting(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        seen.append(x)
        return original(x, *args, **kwargs)

    monkeypatch.setattr(activations, "rotate", counting)
    return seen


@pytest.mark.parametrize("output_rotation", ROTATIONS)
@pytest.mark.parametrize("shape", [(96, 64), (210, 346), (30, 210)])
@pytest.mark.parametrize("bias", [False, True])
def test_forward_is_a_product_with_the_effective_matrix(
    shape: tuple[int, int], output_rotation: str, bias: bool
) -> None:
    layer = linear(*shape, bias=bias, output_rotation=output_rotation)
    x = torch.randn(2, 3, shape[1])
    expected = nn.functional.linear(x, layer.effective(), layer.bias)
    torch.testing.assert_close(
        layer(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )


@pytest.mark.parametrize("output", ROTATIONS)
def test_effective_undoes_the_rotation_of_the_weight(output: str) -> None:
    w = torch.randn(210, 96)
    turned = Hadamard(seed=1, output=output).rotate(w, None, "x", "y")
    layer = linear(210, 96, output_rotation=output)
    signs = {"input_signs": pack_signs(turned.input_signs)}
    if turned.output_signs is not None:
        signs["output_signs"] = pack_signs(turned.output_signs)
    layer.fill({**random_qweight(INT, (210, 96)).tensors, **signs})
    layer._dense_cache = {torch.float32: turned.w}
    torch.testing.assert_close(layer.effective(), w, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "format", [Int(bits=4, group=16), Int(bits=3, symmetric=False), Trellis(bits=2)]
)
def test_buffers_are_the_stored_tensors_and_an_empty_weight(format: Format) -> None:
    state = linear(format=format, bias=True, output_rotation="full").state_dict()
    assert set(state) == {*format.stored((96, 80)), "weight", "bias", "input_signs", "output_signs"}
    for name, (size, kind) in format.stored((96, 80)).items():
        dtype = DTYPES[kind]
        assert (state[name].shape, state[name].dtype) == (torch.Size(size), dtype)
    assert state["weight"].numel() == 0
    assert state["input_signs"].numel() == 10


def test_decoded_decodes_once_and_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(linear(80, 80), linear(80, 80, bias=True, output_rotation="block64"))
    x = torch.randn(4, 80)
    expected = model(x)
    calls: list[QWeight] = []
    original = Int.unpack
    monkeypatch.setattr(
        Int, "unpack", lambda self, weight: calls.append(weight) or original(self, weight)
    )
    with keep_decoded(model):
        with keep_decoded(model), torch.inference_mode():
            assert torch.equal(model(x), expected)
        x.requires_grad_(True)
        answer = model(x)
        assert torch.equal(answer, expected)
        answer.sum().backward()
        assert len(calls) == 2
    assert torch.equal(model(x), expected)
    assert len(calls) == 4
    assert all(layer._dense_cache is None for layer in model)


def test_decoded_restores_after_an_error() -> None:
    model = nn.Sequential(linear())

    def fail() -> None:
        with keep_decoded(model):
            model(torch.randn(2, 80))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model[0]._dense_cache is None


def test_new_codes_inside_decoded_count() -> None:
    first, second = linear(), linear()
    x = torch.randn(2, 80)
    with keep_decoded(first):
        first(x)
        first.load_state_dict(second.state_dict())
        assert torch.equal(first(x), second(x))


def shared(num: int = 3, outputs: int = 96) -> list[CompressedLinear]:
    """Layers with equal input signs that share one memo."""
    group = [linear(outputs) for _ in range(num)]
    for layer in group[1:]:
        layer.input_signs.copy_(group[0].input_signs)
    share_inputs(nn.ModuleList(group))
    return group


def test_layers_that_read_one_tensor_rotate_it_once(rotations: list[Tensor]) -> None:
    group = shared()
    x = torch.randn(2, 80)
    answers = [layer(x) for layer in group]
    assert len(rotations) == 1
    for layer, answer in zip(group, answers, strict=True):
        assert torch.equal(copy.deepcopy(layer)(x), answer)


def test_a_changed_or_another_input_is_rotated_again(rotations: list[Tensor]) -> None:
    a, b, c = shared()
    x = torch.randn(2, 80)
    a(x)
    x.mul_(2)
    assert torch.equal(b(x), copy.deepcopy(b)(x))
    other = x.clone()
    assert torch.equal(c(other), copy.deepcopy(c)(other))
    assert len(rotations) == 5


def test_other_signs_are_another_rotation(rotations: list[Tensor]) -> None:
    a, b, _ = shared()
    x = torch.randn(2, 80)
    a(x), b(x)
    b.load_state_dict(linear().state_dict())
    assert torch.equal(b(x), copy.deepcopy(b)(x))
    assert len(rotations) == 3


def test_the_memo_lets_go_of_a_dead_input(rotations: list[Tensor]) -> None:
    a, b, _ = shared()
    x = torch.randn(2, 80)
    a(x)
    held = weakref.ref(a.memo._local.entry.result)
    del x
    rotations.clear()
    gc.collect()
    assert held() is None
    assert a.memo._local.entry.result is None
    assert torch.equal(b(torch.ones(2, 80)), copy.deepcopy(b)(torch.ones(2, 80)))


def test_gradients_pass_shared_rotations() -> None:
    a, b, _ = shared()
    x = torch.randn(2, 80, requires_grad=True)
    with torch.no_grad():
        a(x)
    first, second = a(x), b(x)
    first.sum().backward()
    second.sum().backward()
    expected = (a.effective() + b.effective()).sum(0).expand(2, -1)
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("rotation", ["full", "block64"])
@pytest.mark.parametrize("inverse", [False, True])
def test_rotation_is_orthogonal_and_has_the_right_gradient(rotation: str, inverse: bool) -> None:
    signs = torch.randn(84).sign()
    x = torch.randn(2, 84, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda t: activations.rotate(t, signs, rotation, inverse), x, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(
        lambda t: activations.rotate(t, signs, rotation, inverse), x, fast_mode=True
    )
    there = activations.rotate(x, signs, rotation, inverse)
    torch.testing.assert_close(activations.rotate(there, signs, rotation, not inverse), x)


def test_threads_do_not_mix_their_inputs() -> None:
    group = shared()
    wrong: list[int] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(20):
            x = torch.randn(2, 80, generator=generator)
            for layer, alone in zip(group, alone_, strict=True):
                if not torch.equal(layer(x), alone[seed](x)):
                    wrong.append(seed)

    alone_ = [[copy.deepcopy(layer) for _ in range(3)] for layer in group]
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_changes_activations_never_what_is_stored(dtype: torch.dtype) -> None:
    layer = linear(bias=True, output_rotation="full")
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.to(dtype)
    for name, tensor in layer.state_dict().items():
        if name in ("weight", "bias"):
            assert tensor.dtype == dtype
        else:
            assert torch.equal(tensor, before[name])
            assert tensor.dtype == before[name].dtype
    assert layer(torch.randn(2, 80, dtype=dtype)).dtype == dtype
    layer.float()
    assert layer.bias.dtype == torch.float32


def test_half_precision_is_near_single() -> None:
    layer = linear(output_rotation="block64")
    x = torch.randn(4, 80).bfloat16()
    exact = layer(x.float())
    assert float((layer(x).float() - exact).norm() / exact.norm()) < 0.02


def test_meta_then_filled_by_name() -> None:
    source = linear(bias=True)
    with torch.device("meta"):
        empty = CompressedLinear(80, 96, INT, bias=True, input_signs=True)
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    empty.to_empty(device="cpu").load_state_dict(source.state_dict())
    x = torch.randn(2, 80)
    assert torch.equal(empty(x), source(x))


def test_nothing_asks_for_gradients() -> None:
    assert not any(p.requires_grad for p in linear(bias=True).parameters())


def test_fill_refuses_what_the_format_does_not_store() -> None:
    layer = linear()
    good = {name: layer.get_buffer(name) for name in layer.stored_names()}
    with pytest.raises(UsageError, match="stores codes, scale, input_signs"):
        layer.fill({"codes": good["codes"]})
    with pytest.raises(UsageError, match="scale of"):
        layer.fill({**good, "scale": good["scale"].float()})
    with pytest.raises(UsageError, match="codes of"):
        layer.fill({**good, "codes": good["codes"][:-1]})
    with pytest.raises(UsageError, match="choose none, block64, full"):
        CompressedLinear(64, 64, INT, output_rotation="both")


def table(scale: float | None = None) -> CompressedEmbedding:
    """300 rows of 64."""
    made = CompressedEmbedding(300, 64, INT, scale)
    made.fill(random_qweight(INT, (300, 64)).tensors)
    return made


def test_embedding_looks_up_rows_and_the_head_shares_them() -> None:
    embedding = table()
    head = TiedHead(embedding)
    ids = torch.tensor([[0, 299, 5], [5, 5, 1]])
    assert torch.equal(embedding(ids), embedding.dense()[ids])
    x = torch.randn(2, 64)
    assert torch.equal(head(x), nn.functional.linear(x, embedding.dense()))
    assert list(head.state_dict()) == []
    assert embedding.to(torch.bfloat16)(ids).dtype == torch.bfloat16
    with pytest.raises(IndexError):
        embedding(torch.tensor([300]))


def test_a_copied_head_follows_the_copied_table() -> None:
    model = nn.ModuleDict({"table": table()})
    model["head"] = TiedHead(model["table"])
    twin = copy.deepcopy(model)
    assert twin["head"].embedding is twin["table"]
    assert twin["head"].embedding is not model["table"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_embedding_that_scales_is_scaled_alike(dtype: torch.dtype) -> None:
    dense = Gemma3TextScaledWordEmbedding(300, 64, 0, embed_scale=92**0.5).to(dtype)
    light = CompressedEmbedding.of(dense, INT)
    light.fill(random_qweight(INT, (300, 64)).tensors)
    dense.weight.data = light.dense(dtype)
    ids = torch.arange(300)
    assert torch.equal(light(ids), dense(ids))


class Doubled(nn.Linear):
    """Computes more than a matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_modules_that_compute_something_else_are_refused() -> None:
    with pytest.raises(UsageError, match="Doubled computes more"):
        CompressedLinear.of(Doubled(64, 64), INT)
    with pytest.raises(UsageError, match="Embedding computes more"):
        CompressedEmbedding.of(nn.Embedding(300, 64, max_norm=1.0), INT)


def test_a_tied_head_takes_the_place_of_a_linear() -> None:
    model = nn.ModuleDict({"table": table(), "head": nn.Linear(64, 300)})
    bias = model["head"].bias
    layers.tie_head(model, "head", model["table"])
    assert list(layers.compressed_layers(model)) == ["table"]
    assert list(model["head"].state_dict()) == ["bias"]
    x = torch.randn(64)
    assert torch.equal(model["head"](x), nn.functional.linear(x, model["table"].dense(), bias))
    with pytest.raises(UsageError, match="cannot share a table"):
        layers.tie_head(nn.ModuleDict({"head": nn.Linear(64, 299)}), "head", model["table"])
