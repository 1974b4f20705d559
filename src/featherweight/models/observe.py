"""Observes the tensors of a model while it runs: inputs and outputs of modules, the residual
stream, attention, logits.

`observe(model, batch, sites, observer)` runs the model's own `forward` and calls
`observer(site, value, gradient)` for each requested site. Without `logit_gradient` it does so in
the forward pass, with gradient None; with it, in the backward pass as soon as the gradient of the
tensor arrives. Models run block by block (`passes.py`), so the activations of only one block are in
memory. Hooks and all other changes to the model are undone at the end, also after an error.

The attention tensors are those that transformers passes to its attention function: after the rotary
embedding, before key and value heads are repeated. Attention probabilities are computed from them,
in float32, only when they are requested.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..base.errors import BadInput, UsageError
from . import passes, structure

KINDS = ("input", "output", "residual", "query", "key", "value", "attention", "logits")
ATTENTION_KINDS = ("query", "key", "value", "attention")
_OBSERVED_ATTENTION = (
    "featherweight_observed"  # the name of the attention function while a model is observed
)


@dataclass(frozen=True)
class Site:
    """One tensor of a model that can be observed, for batches of B sequences of T tokens.

    `block`: the index of its block; None outside the blocks. `name`: a full module name. `kind`:
    - "input", "output": of the module `name`, (B, T, width);
    - "residual": the residual stream that leaves the block `name`, (B, T, width);
    - "query", "key", "value": of the attention module `name`, (B, T, heads, head width);
    - "attention": its attention probabilities, (B, query heads, T, T);
    - "logits": of the model, whose name is "", (B, T, vocabulary).
    """

    block: int | None
    name: str
    kind: str


# Called with the site, its tensor and, in a backward pass, the gradient of the tensor.
Observer = Callable[[Site, Tensor, Tensor | None], None]
LogitGradient = Callable[[Float[Tensor, "batch seq vocab"]], Float[Tensor, "batch seq vocab"]]


def sites(model: nn.Module, kind: str, pattern: str = "*") -> list[Site]:
    """All sites of `kind` whose module name matches `pattern` (as in the shell), in module order.

    For "input" and "output" these are the linear layers, also compressed ones, and the head; for
    "residual" the blocks; for "query", "key", "value" and "attention" the attention modules. Raises
    UsageError for an unknown kind or a pattern that matches nothing.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown kind of site {kind!r}; choose {', '.join(KINDS)}")
    if kind == "logits":
        return [Site(None, "", kind)]
    blocks = {name: index for index, (name, _) in enumerate(structure.blocks(model))}
    if kind == "residual":
        names = list(blocks)
    elif kind in ATTENTION_KINDS:
        names = [
            name
            for name, module in model.named_modules()
            if hasattr(module, "layer_idx") and _is_attention(module)
        ]
    else:
        names = [name for name, module in model.named_modules() if structure.is_linear(module)]
    matches = [name for name in names if fnmatchcase(name, pattern)]
    if not matches:
        raise UsageError(
            f"no {kind} of this model matches {pattern!r}; there are {', '.join(names[:3])} ..."
        )
    return [Site(_block_index(name, blocks), name, kind) for name in matches]


def observe(
    model: nn.Module,
    batch: Tensor | Mapping[str, Tensor],
    sites: Sequence[Site],
    observer: Observer,
    *,
    logit_gradient: LogitGradient | None = None,
    keep_graphs: bool = False,
    check_finite: bool = False,
    require_all: bool = True,
) -> None:
    """Run `model` on `batch` and pass the tensors at `sites` to `observer`.

    batch: token ids (B, T), or a mapping with `input_ids` and, for padded batches, `attention_mask`
        (B, T). With a mask the model ignores padding. Tensors with one vector for each token then
        have the shape (tokens, ...) without the positions of padding; in attention probabilities
        the rows of padding are zero.
    observer: is called with each site, its tensor and the gradient of the tensor.
    logit_gradient: maps the logits to the gradient that is propagated back; without it there is
        only a forward pass. The gradient of a tensor that gets none is None.
    keep_graphs: keep the activations of all blocks instead of computing each block again for its
        backward pass. This saves one forward pass, and needs more memory and float32 weights.
    check_finite: raise BadInput, which names the module, as soon as an input is not finite.
    require_all: raise UsageError for a site that the forward pass never reaches.

    The logits are not computed when no site needs them. Parameters get no gradients, and the model
    is unchanged afterwards. Raises UsageError for a site that the model does not have, or that its
    forward pass never reaches.
    """
    inputs = dict(batch) if isinstance(batch, Mapping) else {"input_ids": batch}
    mask = inputs.get("attention_mask")
    _check_sites(model, sites)
    watcher = _Watcher(
        model,
        sites,
        observer,
        None if mask is None else mask.bool(),
        logit_gradient is not None,
        check_finite,
    )
    with watcher.observe_attention():
        if logit_gradient is None:
            head = structure.head(model)
            needs_head = any(
                site.kind == "logits" or (site.name == head and site.kind == "output")
                for site in sites
            )
            passes.forward(model, inputs, watcher.hooks, needs_head)
        else:
            passes.forward_backward(model, inputs, logit_gradient, watcher.hooks, keep_graphs)
    missed_sites = [site for site in sites if site not in watcher.reached_sites]
    if missed_sites and require_all:
        raise UsageError(
            f"the model's forward pass never reaches the {missed_sites[0].kind} of "
            f"{missed_sites[0].name!r}"
        )


def linear_observer(visit: Callable[[str, Tensor, Tensor], None]) -> Observer:
    """An observer that calls `visit(name, input, gradient of the output)` for linear layers whose
    input and output are both observed.

    In a backward pass the gradient of a layer's output arrives first. It is kept until the gradient
    of the input arrives.
    """
    gradients: dict[str, Tensor] = {}

    def observer(site: Site, value: Tensor, gradient: Tensor | None) -> None:
        if site.kind == "output" and gradient is not None:
            gradients[site.name] = gradient
        elif site.kind == "input" and site.name in gradients:
            visit(site.name, value, gradients.pop(site.name))

    return observer


class _Watcher:
    """Installs hooks at the sites, and passes each tensor to the observer once for each pass."""

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[Site],
        observer: Observer,
        mask: Bool[Tensor, "batch seq"] | None,
        backward: bool,
        check_finite: bool,
    ) -> None:
        self.model, self.sites, self.observer, self.mask = model, sites, observer, mask
        self.backward, self.check_finite = backward, check_finite
        self.reached_sites: set[Site] = set()
        self._attention: dict[tuple[nn.Module, str], Site] = {
            (model.get_submodule(site.name), site.kind): site
            for site in sites
            if site.kind in ATTENTION_KINDS
        }

    @contextmanager
    def hooks(self, block: int | None) -> Iterator[None]:
        """Hooks for the sites inside block `block`, or for those outside the blocks."""
        handles = []
        for site in self.sites:
            if site.block == block and site.kind not in ATTENTION_KINDS:
                module = self.model.get_submodule(site.name)
                if site.kind == "input":
                    handles.append(
                        module.register_forward_pre_hook(self._input_hook(site), with_kwargs=True)
                    )
                else:
                    handles.append(module.register_forward_hook(self._output_hook(site)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _input_hook(self, site: Site) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.show(site, args[0] if args else next(iter(kwargs.values())))

        return hook

    def _output_hook(self, site: Site) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if site.kind == "logits":
                output = output.logits
            self.show(site, output[0] if isinstance(output, tuple) else output)

        return hook

    def show(self, site: Site, value: Tensor) -> None:
        """Call the observer with `value`, now or when its gradient arrives."""
        if self.check_finite and site.kind == "input":
            require_finite(value, site.name)
        if not self.backward:
            self._report(site, value, None)
        elif torch.is_grad_enabled() and value.requires_grad:
            # The hook belongs to the graph that made `value`. If it held `value` itself, the two
            # would keep each other, and with them all activations, alive.
            numbers = value.detach()
            value.register_hook(lambda gradient: self._report(site, numbers, gradient))
        elif torch.is_grad_enabled():
            self._report(site, value, None)

    def _report(self, site: Site, value: Tensor, gradient: Tensor | None) -> None:
        self.reached_sites.add(site)
        gradient = None if gradient is None else self._arrange(site, gradient.detach())
        self.observer(site, self._arrange(site, value.detach()), gradient)

    def _arrange(self, site: Site, value: Tensor) -> Tensor:
        """`value` in the form that the observer gets: the axis of heads after that of positions,
        and without the positions of padding.
        """
        if site.kind in ("query", "key", "value"):
            value = value.transpose(1, 2)
        if self.mask is None:
            return value
        mask = self.mask.to(value.device)
        return value * mask[:, None, :, None] if site.kind == "attention" else value[mask]

    @contextmanager
    def observe_attention(self) -> Iterator[None]:
        """Inside this context, the attention function of the model also passes its tensors to the
        observer. Without sites of attention kinds nothing changes.
        """
        if not self._attention:
            yield
            return
        from transformers import AttentionInterface, AttentionMaskInterface

        config: Any = self.model.config
        config = config.get_text_config(decoder=True)
        implementation = config._attn_implementation
        functions: dict[str, Any] = AttentionInterface._global_mapping
        masks: dict[str, Any] = AttentionMaskInterface._global_mapping
        functions[_OBSERVED_ATTENTION] = self._attention_function(functions.get(implementation))
        masks[_OBSERVED_ATTENTION] = masks[implementation]
        config._attn_implementation = _OBSERVED_ATTENTION
        try:
            yield
        finally:
            config._attn_implementation = implementation
            del functions[_OBSERVED_ATTENTION], masks[_OBSERVED_ATTENTION]

    def _attention_function(self, function: Callable[..., Any] | None) -> Callable[..., Any]:
        def attend(
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            mask: Tensor | None,
            **options: Any,
        ) -> Any:
            for kind, tensor in (("query", query), ("key", key), ("value", value)):
                if site := self._attention.get((module, kind)):
                    self.show(site, tensor)
            if site := self._attention.get((module, "attention")):
                self.show(
                    site,
                    attention_probabilities(module, query.detach(), key.detach(), mask, **options),
                )
            # transformers does not register the eager function; it is defined in the Python module
            # of the model.
            attend_function = (
                function or sys.modules[type(module).__module__].eager_attention_forward
            )
            return attend_function(module, query, key, value, mask, **options)

        return attend


def attention_probabilities(
    module: nn.Module,
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch key_heads keys width"],
    mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **options: Any,
) -> Float[Tensor, "batch heads queries keys"]:
    """softmax(query key^T scaling), capped and masked as the model's attention does, in float32.

    mask: additive or boolean (True: the query may attend to the key); None means a causal mask if
    the module is causal. scaling: None for head width ** -0.5. softcap: None for no soft cap.
    """
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = (query.float() @ key.float().transpose(2, 3)) * (
        query.shape[-1] ** -0.5 if scaling is None else scaling
    )
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is None and getattr(module, "is_causal", True):
        positions = torch.arange(scores.shape[-1], device=scores.device)
        mask = positions[None] <= positions[-scores.shape[-2] :, None]
    if mask is not None:
        mask = mask[..., : scores.shape[-1]]
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    # The softmax of a row that may attend to no key (padding on the left) is NaN; it becomes zero.
    return torch.nan_to_num(torch.softmax(scores, -1))


def require_finite(value: Tensor, name: str) -> None:
    """Raise BadInput, naming the module, when one of its inputs is NaN or infinite."""
    # The largest magnitude is not finite when any number is not finite, and computing it needs no
    # copy of the tensor.
    if not bool(torch.isfinite(torch.linalg.vector_norm(value.detach(), float("inf")))):
        raise BadInput(
            f"{name}: its inputs are not finite on this text; the model or its dtype overflows"
        )


def _check_sites(model: nn.Module, sites: Sequence[Site]) -> None:
    names = {name for name, _ in model.named_modules()}
    blocks = {name: index for index, (name, _) in enumerate(structure.blocks(model))}
    for site in sites:
        if site.kind not in KINDS:
            raise UsageError(f"unknown kind of site {site.kind!r}; choose {', '.join(KINDS)}")
        if site.name not in names:
            matches = get_close_matches(site.name, names, n=1)
            raise UsageError(
                f"the model has no module {site.name!r}"
                + (f"; did you mean {matches[0]!r}?" if matches else "")
            )
        if site.block != _block_index(site.name, blocks):
            raise UsageError(
                f"{site.name!r} lies in block {_block_index(site.name, blocks)}, not in "
                f"{site.block}"
            )


def _block_index(name: str, blocks: Mapping[str, int]) -> int | None:
    return next(
        (index for block, index in blocks.items() if name == block or name.startswith(f"{block}.")),
        None,
    )


def _is_attention(module: nn.Module) -> bool:
    return any(structure.is_linear(child) for child in module.children()) and hasattr(
        module, "scaling"
    )
