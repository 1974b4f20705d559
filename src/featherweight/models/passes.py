"""Forward and backward through a model block by block, so that only one block's working set is alive.

The model's own `forward` runs; hooks cut the graph at the input of every block. Weights that are not float32 (a
memory-mapped bfloat16 checkpoint) are widened when their block is entered and dropped when it is left. The backward
pass walks the blocks from last to first, recomputing each from its saved input unless the graphs were kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..base.errors import BadInput
from .structure import blocks, head

# Called with (name, module, input (batch, seq, n), gradient of the output (batch, seq, m) or None in forward passes).
Visitor = Callable[[str, nn.Linear, Tensor, Tensor | None], None]


@contextmanager
def widened(module: nn.Module) -> Iterator[None]:
    """Parameters of `module` in float32 inside, as they were outside."""
    before = {p: p.data for p in module.parameters(recurse=True) if p.dtype != torch.float32}
    try:
        for p in before:
            p.data = p.data.float()
        yield
    finally:
        for p, data in before.items():
            p.data = data


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside, as it was outside."""
    training = model.training
    wanted = [p for p in model.parameters() if p.requires_grad]
    try:
        model.eval()
        for p in wanted:
            p.requires_grad_(False)
        yield
    finally:
        model.train(training)
        for p in wanted:
            p.requires_grad_(True)


@contextmanager
def watching(name: str, block: nn.Module, visit: Visitor, backward: bool) -> Iterator[None]:
    """Call `visit` for every linear of `block`: after its forward, or when its output's gradient arrives."""

    def hook(layer_name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            x = args[0].detach()
            _require_finite(x, layer_name)
            if not backward:
                visit(layer_name, module, x, None)  # type: ignore[arg-type]
            else:
                output.register_hook(lambda g: visit(layer_name, module, x, g))  # type: ignore[arg-type]

        return after

    handles = [
        module.register_forward_hook(hook(f"{name}.{inner}"))
        for inner, module in block.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _require_finite(x: Tensor, name: str) -> None:
    # The largest magnitude is not finite when any number is not, and takes no copy.
    if not bool(torch.isfinite(torch.linalg.vector_norm(x, float("inf")))):
        raise BadInput(f"{name}: its inputs are not finite on the calibration text; the model or its dtype overflows")


def forward(model: nn.Module, tokens: Int[Tensor, "batch seq"], visit: Visitor) -> None:
    """One forward pass that shows the input of every block linear, and of the head, to `visit`; no logits are computed."""
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(frozen(model))
        whole = stack.enter_context(_head_shown_instead(model, visit))
        for name, block in blocks(model):
            stack.enter_context(watching(name, block, visit, backward=False))
            stack.enter_context(_widened_when_run(block))
        model(input_ids=tokens, use_cache=False, logits_to_keep=0 if whole else 1)


@contextmanager
def _head_shown_instead(model: nn.Module, visit: Visitor) -> Iterator[bool]:
    """Inside, a linear head shows its input to `visit` and hands on one column of it; False when there is no such head."""
    name = head(model)
    module = None if name is None else model.get_submodule(name)
    if name is None or not isinstance(module, nn.Linear):
        yield False
        return

    def show(x: Tensor) -> Tensor:
        _require_finite(x, name)
        visit(name, module, x.detach(), None)
        return x[..., :1]

    own = vars(module).get("forward")
    module.forward = show  # type: ignore[method-assign, assignment]
    try:
        yield True
    finally:
        vars(module).pop("forward")
        if own is not None:
            vars(module)["forward"] = own


@contextmanager
def _head_shown(model: nn.Module, visit: Visitor | None) -> Iterator[None]:
    """Inside, a linear head shows its input to `visit` (when there is one) before it computes."""
    name = head(model)
    module = None if name is None else model.get_submodule(name)
    if visit is None or name is None or not isinstance(module, nn.Linear):
        yield
        return
    handle = module.register_forward_pre_hook(lambda _, args: visit(name, module, args[0].detach(), None))
    try:
        yield
    finally:
        handle.remove()


def forward_backward(
    model: nn.Module,
    tokens: Int[Tensor, "batch seq"],
    logit_gradient: Callable[[Float[Tensor, "batch seq vocab"]], Float[Tensor, "batch seq vocab"]],
    visit: Visitor,
    keep_graphs: bool = False,
    visit_head: Visitor | None = None,
) -> None:
    """Backpropagate `logit_gradient(logits)` and show every block linear's input and output gradient to `visit`.

    `visit_head` is shown the head's input, without a gradient.
    With `keep_graphs` the blocks are not recomputed: faster by a forward pass, memory for all blocks' activations
    (and it needs float32 weights).
    """
    inner = blocks(model)
    cuts = _Cuts(inner[-1][0])
    with ExitStack() as stack:
        stack.enter_context(frozen(model))
        for name, block in inner:
            stack.enter_context(cuts.at(name, block))
            if keep_graphs:
                stack.enter_context(watching(name, block, visit, backward=True))
            else:
                stack.enter_context(_without_gradients(block))
                stack.enter_context(_widened_when_run(block))
        with torch.enable_grad(), _head_shown(model, visit_head):
            logits = model(input_ids=tokens, use_cache=False).logits
        logits.backward(logit_gradient(logits.detach()))
        del logits
    gradient = cuts.tail.grad
    with frozen(model):
        for name, block in reversed(inner):
            output = cuts.outputs.pop(name)
            if not keep_graphs:
                output = _rerun(name, block, cuts.calls[name], visit)
            output.backward(gradient)
            gradient = cuts.leaves.pop(name).grad
            cuts.calls.pop(name)


class _Cuts:
    """The graph cut before every block and after the last one: each piece starts at a leaf that collects a gradient."""

    def __init__(self, last: str) -> None:
        self.last = last
        self.calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.leaves: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.tail: Tensor

    @contextmanager
    def at(self, name: str, block: nn.Module) -> Iterator[None]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            args, kwargs, self.leaves[name] = _with_leaf(args, kwargs)
            self.calls[name] = (args, kwargs)
            return args, kwargs

        def after(module: nn.Module, args: Any, output: Any) -> Any:
            self.outputs[name] = output[0] if isinstance(output, tuple) else output
            if name != self.last:
                return None
            self.tail = self.outputs[name].detach().requires_grad_()
            return (self.tail, *output[1:]) if isinstance(output, tuple) else self.tail

        handles = [
            block.register_forward_pre_hook(before, with_kwargs=True),
            block.register_forward_hook(after),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _rerun(name: str, block: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]], visit: Visitor) -> Tensor:
    args, kwargs = call
    with torch.enable_grad(), widened(block), watching(name, block, visit, backward=True):
        output = block(*args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


def _with_leaf(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """The block's call with its hidden states replaced by a leaf that collects a gradient."""
    if args:
        leaf = args[0].detach().requires_grad_()
        return (leaf, *args[1:]), kwargs, leaf
    leaf = kwargs["hidden_states"].detach().requires_grad_()
    return args, {**kwargs, "hidden_states": leaf}, leaf


@contextmanager
def _widened_when_run(block: nn.Module) -> Iterator[None]:
    entered: list[ExitStack] = []

    def enter(module: nn.Module, args: Any) -> None:
        stack = ExitStack()
        stack.enter_context(widened(module))
        entered.append(stack)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        entered.pop().close()

    handles = [block.register_forward_pre_hook(enter), block.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        while entered:
            entered.pop().close()


@contextmanager
def _without_gradients(block: nn.Module) -> Iterator[None]:
    """No graph is recorded while `block` runs."""
    modes: list[torch.no_grad] = []

    def enter(module: nn.Module, args: Any) -> None:
        mode = torch.no_grad()
        mode.__enter__()
        modes.append(mode)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        modes.pop().__exit__(None, None, None)

    handles = [block.register_forward_pre_hook(enter), block.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
