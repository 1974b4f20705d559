"""What an observer is shown is what the model computes, and the model is left as it was found."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import other_families
import pytest
import tiny
import torch
from torch import Tensor, nn

import featherweight as fw
from featherweight.base.errors import BadInput, UsageError
from featherweight.models.observe import KINDS, Site, linear_observer, observe, sites

TOKENS = torch.tensor([[5, 9, 17, 250, 3], [8, 8, 40, 2, 7]])
FAMILIES = [tiny.llama, tiny.gemma2, tiny.gemma3]


def collect(model: nn.Module, wanted: list[Site], batch: Any = TOKENS, **options: Any) -> dict:
    """Site -> list of (value, gradient)."""
    shown: dict[Site, list[tuple[Tensor, Tensor | None]]] = {}
    observe(model, batch, wanted, lambda s, v, g: shown.setdefault(s, []).append((v, g)), **options)
    return shown


def state_of(model: nn.Module) -> Any:
    """Everything that a hook or a patch could change."""
    modules = [
        (
            *(name, module.training, sorted(vars(module)), len(module._forward_hooks)),
            *(len(module._forward_pre_hooks), "forward" in vars(module)),
        )
        for name, module in model.named_modules()
    ]
    parameters = [(p.requires_grad, p.dtype, p.grad is None) for p in model.parameters()]
    return modules, parameters, model.config._attn_implementation


def everything(model: nn.Module) -> list[Site]:
    return [site for kind in KINDS for site in sites(model, kind)]


@pytest.mark.parametrize(
    ("make", "implementation"),
    [(tiny.llama, "sdpa"), (tiny.llama, "eager"), (tiny.qwen3, "sdpa"), (tiny.gemma2, "eager")],
)
def test_values_are_those_of_the_model(make: Any, implementation: str) -> None:
    model = make()[0]
    model.set_attn_implementation(implementation)
    shown = {site: pairs[0][0] for site, pairs in collect(model, everything(model)).items()}
    with torch.no_grad():
        output = model(TOKENS, output_hidden_states=True)
        model.set_attn_implementation("eager")
        attentions = model(TOKENS, output_attentions=True).attentions
    num_blocks = len(output.hidden_states) - 1
    assert torch.equal(shown[Site(None, "", "logits")], output.logits)
    for index in range(num_blocks - 1):  # the last hidden state of transformers is behind the norm
        block = f"model.layers.{index}"
        assert torch.equal(shown[Site(index, block, "residual")], output.hidden_states[index + 1])
        attention = f"{block}.self_attn"
        q = shown[Site(index, attention, "query")]
        k, v = shown[Site(index, attention, "key")], shown[Site(index, attention, "value")]
        config = model.config.get_text_config()
        assert q.shape == (2, 5, config.num_attention_heads, q.shape[-1])
        assert k.shape == v.shape == (2, 5, config.num_key_value_heads, q.shape[-1])
        probabilities = shown[Site(index, attention, "attention")]
        torch.testing.assert_close(probabilities, attentions[index], rtol=1e-4, atol=1e-6)
        for name in ("mlp.down_proj", "self_attn.o_proj"):
            linear = model.get_submodule(f"{block}.{name}")
            x = shown[Site(index, f"{block}.{name}", "input")]
            torch.testing.assert_close(shown[Site(index, f"{block}.{name}", "output")], linear(x))


@pytest.mark.parametrize("keep_graphs", [False, True])
def test_gradients_are_those_of_autograd(keep_graphs: bool) -> None:
    model = tiny.llama()[0]
    weights = torch.randn(2, 5, 300, generator=torch.Generator().manual_seed(1))
    kinds = ("input", "output", "residual", "query", "key", "value", "logits")
    wanted = [site for kind in kinds for site in sites(model, kind)]
    shown = collect(model, wanted, logit_gradient=lambda logits: weights, keep_graphs=keep_graphs)
    assert set(shown) == set(wanted) and all(len(pairs) == 1 for pairs in shown.values())
    tensors: dict[tuple[str, str], Tensor] = {}

    def keep(name: str, kind: str, tensor: Tensor) -> None:
        tensor.retain_grad()
        tensors[name, kind] = tensor

    for site in wanted:
        module = model.get_submodule(site.name)
        if site.kind == "input":
            module.register_forward_pre_hook(lambda m, a, n=site.name: keep(n, "input", a[0]))
        elif site.kind == "output":
            module.register_forward_hook(lambda m, a, y, n=site.name: keep(n, "output", y))
    model(TOKENS).logits.backward(weights)
    for (name, kind), tensor in tensors.items():
        (site,) = (s for s in wanted if (s.name, s.kind) == (name, kind))
        value, gradient = shown[site][0]
        torch.testing.assert_close(value, tensor.detach())
        torch.testing.assert_close(gradient, tensor.grad, rtol=1e-4, atol=1e-6)
    assert torch.equal(shown[Site(None, "", "logits")][0][1], weights)
    for site, ((value, gradient),) in shown.items():
        assert gradient is not None and gradient.shape == value.shape, site


def test_pairs_are_inputs_with_the_gradients_of_their_outputs() -> None:
    model = tiny.llama()[0]
    wanted = [site for kind in ("input", "output") for site in sites(model, kind, "*proj")]
    shown = collect(model, wanted, logit_gradient=torch.ones_like)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    observer = linear_observer(lambda name, x, g: pairs.update({name: (x, g)}))
    observe(model, TOKENS, wanted, observer, logit_gradient=torch.ones_like)
    assert set(pairs) == {site.name for site in wanted}
    for name, (x, g) in pairs.items():
        by_kind = {site.kind: shown[site][0] for site in wanted if site.name == name}
        assert torch.equal(x, by_kind["input"][0]) and torch.equal(g, by_kind["output"][1])


@pytest.mark.parametrize("make", FAMILIES)
def test_padding_is_not_shown(make: Any) -> None:
    """Two texts of 5 and 3 tokens, padded on either side: each value is that of the text alone."""
    model = make()[0]
    wanted = everything(model)
    texts = [TOKENS[:1], TOKENS[1:, :3]]
    alone = [{s: p[0][0] for s, p in collect(model, wanted, text).items()} for text in texts]
    for left in (False, True):
        ids, mask = torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.int64)
        for row, text in enumerate(texts):
            place = slice(5 - text.shape[1], 5) if left else slice(0, text.shape[1])
            ids[row, place], mask[row, place] = text[0], 1
        batch = {"input_ids": ids, "attention_mask": mask}
        batch["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        for site, ((value, _),) in collect(model, wanted, batch).items():
            if site.kind == "attention":
                assert value.shape[-2:] == (5, 5)
                torch.testing.assert_close(
                    value.sum(-1), mask[:, None].expand(value.shape[:3]).float()
                )
                continue
            expected = torch.cat([values[site][0] for values in alone])
            assert value.shape[0] == 8, site
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_compressed_layers_are_seen() -> None:
    model = tiny.llama()[0]
    names = [site.name for site in sites(model, "input")]
    fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=8)}), transform=fw.Hadamard())
    wanted = [site for kind in ("input", "output") for site in sites(model, kind)]
    assert [site.name for site in wanted if site.kind == "input"] == names
    assert set(collect(model, wanted)) == set(wanted)
    shown = collect(model, wanted, logit_gradient=torch.ones_like)
    assert all(pairs[0][1] is not None for pairs in shown.values())


@pytest.mark.parametrize("options", [{}, {"logit_gradient": torch.ones_like}])
def test_the_model_is_left_as_it_was_found(options: dict[str, Any]) -> None:
    model = tiny.llama()[0].train()
    model.model.layers[0].eval()
    model.lm_head.weight.requires_grad_(False)
    state = state_of(model)
    collect(model, everything(model), **options)
    assert state_of(model) == state

    def fail(site: Site, value: Tensor, gradient: Tensor | None) -> None:
        if site.name.endswith("layers.1.mlp.up_proj"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        observe(model, TOKENS, everything(model), fail, **options)
    assert state_of(model) == state


def test_logits_are_not_computed_when_nothing_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.llama()[0]
    widths = []
    real = nn.functional.linear
    monkeypatch.setattr(
        nn.functional, "linear", lambda x, w, b=None: widths.append(len(w)) or real(x, w, b)
    )
    shown = collect(model, sites(model, "input"))
    assert 300 not in widths and Site(None, "lm_head", "input") in shown
    collect(model, sites(model, "output", "lm_head"))
    assert 300 in widths


def test_what_cannot_be_observed_is_said() -> None:
    model = tiny.llama()[0]
    with pytest.raises(UsageError, match="no module 'model.layer.0'; did you mean 'model.layers"):
        collect(model, [Site(0, "model.layer.0", "input")])
    with pytest.raises(UsageError, match="unknown kind of site 'inptu'"):
        sites(model, "inptu")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no input of this model matches"):
        sites(model, "input", "*donw_proj")
    with pytest.raises(UsageError, match="lies in block 1, not in 0"):
        collect(model, [Site(0, "model.layers.1.mlp.up_proj", "input")])
    model.model.layers[0].mlp.forward = None
    model.model.layers[0].forward = lambda x, **kwargs: x
    with pytest.raises(UsageError, match="never reaches the input of 'model.layers.0.mlp'"):
        collect(model, [Site(0, "model.layers.0.mlp", "input")])


def test_numbers_that_are_not_finite_name_the_layer() -> None:
    model = tiny.llama()[0]
    model.model.layers[1].input_layernorm.weight.data.fill_(torch.inf)
    collect(model, sites(model, "input"))
    with pytest.raises(BadInput, match=r"model\.layers\.1\.self_attn\.q_proj: its inputs are not"):
        collect(model, sites(model, "input"), check_finite=True)


@pytest.mark.parametrize("keep_graphs", [False, True])
def test_activations_are_freed_when_the_pass_ends(keep_graphs: bool) -> None:
    """No reference cycle keeps the graph of a pass, so that many batches do not fill the memory."""
    model = tiny.llama()[0]
    outputs: list[weakref.ref[Tensor]] = []
    handles = [
        module.register_forward_hook(lambda m, args, output: outputs.append(weakref.ref(output)))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    gc.collect()
    gc.disable()
    try:
        observe(
            model,
            torch.arange(3, 35).view(2, 16),
            [*sites(model, "input"), *sites(model, "output")],
            lambda site, value, gradient: None,
            logit_gradient=torch.ones_like,
            keep_graphs=keep_graphs,
        )
        assert outputs
        assert not [output for output in outputs if output() is not None]
    finally:
        gc.enable()
        for handle in handles:
            handle.remove()


def test_values_that_a_model_flattens_keep_their_axes() -> None:
    """OPT gives its fully connected layers (sequences * tokens, width)."""
    model = other_families.model("opt")
    layers = sites(model, "input", "*.fc1") + sites(model, "output", "*.fc1")
    mask = torch.ones_like(TOKENS)
    mask[1, 4] = 0
    for batch in (TOKENS, {"input_ids": TOKENS, "attention_mask": mask}):
        shape = TOKENS.shape if batch is TOKENS else (9,)
        shown = collect(model, layers, batch, logit_gradient=torch.ones_like)
        for site, [(value, gradient)] in shown.items():
            width = 64 if site.kind == "input" else 128
            assert value.shape == (*shape, width) and gradient is not None
            assert gradient.shape == value.shape
