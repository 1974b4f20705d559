"""Forward and backward through a model block by block, so that only one block's working set is in
memory.

The model's own `forward` runs; hooks cut the graph at the input of every block. Weights that are
not float32 (a memory-mapped bfloat16 checkpoint) are converted when their block is entered and
dropped when it is left. The backward pass walks the blocks from last to first and computes each
again from its saved input, unless the graphs were kept.

`attach(block)` is a context manager that installs the caller's hooks in block number `block`, or
outside the blocks for None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .structure import blocks, head

Attach = Callable[[int | None], AbstractContextManager[None]]
Inputs = Mapping[str, Tensor]


@contextmanager
def in_float32(module: nn.Module) -> Iterator[None]:
    """Inside, the parameters of `module` are float32; afterwards they are as before."""
    narrow = {p: p.data for p in module.parameters(recurse=True) if p.dtype != torch.float32}
    try:
        for p in narrow:
            p.data = p.data.float()
        yield
    finally:
        for p, data in narrow.items():
            p.data = data


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode and no parameter gets a gradient; afterwards both are
    as before.
    """
    modes = [(module, module.training) for module in model.modules()]
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        model.eval()
        for p in trainable:
            p.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for p in trainable:
            p.requires_grad_(True)


def forward(model: nn.Module, inputs: Inputs, attach: Attach, needs_head: bool = False) -> None:
    """One forward pass.

    The head sees all positions, but its product is left out unless `needs_head`.
    """
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(frozen(model))
        if not needs_head:
            stack.enter_context(_without_head_product(model))
        stack.enter_context(attach(None))
        for index, (_, block) in enumerate(blocks(model)):
            stack.enter_context(attach(index))
            stack.enter_context(_in_float32_while_running(block))
        model(**inputs, use_cache=False)


@contextmanager
def _without_head_product(model: nn.Module) -> Iterator[None]:
    """Inside, the head returns one column of its input instead of logits: its hooks run, the large
    product does not.
    """
    name = head(model)
    if name is None:
        yield
        return
    module = model.get_submodule(name)
    instance_forward = vars(module).get("forward")
    module.forward = lambda x: x[..., :1]  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        vars(module).pop("forward")
        if instance_forward is not None:
            vars(module)["forward"] = instance_forward


def forward_backward(
    model: nn.Module,
    inputs: Inputs,
    logit_gradient: Callable[[Float[Tensor, "batch seq vocab"]], Float[Tensor, "batch seq vocab"]],
    attach: Attach,
    keep_graphs: bool = False,
) -> None:
    """Propagate `logit_gradient(logits)` back through the whole model; no parameter gets a
    gradient.

    With `keep_graphs` the blocks are not computed a second time: faster by one forward pass, but
    the activations of all blocks stay in memory, and the weights must be float32.
    """
    named_blocks = blocks(model)
    cuts = _Cuts(named_blocks[-1][0])
    with ExitStack() as stack:
        stack.enter_context(frozen(model))
        # Hooks that were registered first run first: those of the caller see the tensors behind the
        # cuts.
        for index, (name, block) in enumerate(named_blocks):
            stack.enter_context(cuts.at(name, block))
            if keep_graphs:
                stack.enter_context(attach(index))
            else:
                stack.enter_context(_without_gradients(block))
                stack.enter_context(_in_float32_while_running(block))
        stack.enter_context(attach(None))
        with torch.enable_grad():
            logits = model(**inputs, use_cache=False).logits
        logits.backward(logit_gradient(logits.detach()))
        del logits
    gradient = cuts.tail.grad
    with frozen(model):
        for index, (name, block) in reversed(list(enumerate(named_blocks))):
            output = cuts.outputs.pop(name)
            if not keep_graphs:
                output = _rerun(index, block, cuts.calls[name], attach)
            output.backward(gradient)
            gradient = cuts.leaves.pop(name).grad
            cuts.calls.pop(name)


class _Cuts:
    """Cuts the graph at the input of every block and after the last one; each part starts at a leaf
    that collects a gradient.
    """

    def __init__(self, last_block: str) -> None:
        self.last_block = last_block
        self.calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.leaves: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.tail: Tensor

    @contextmanager
    def at(self, name: str, block: nn.Module) -> Iterator[None]:
        """Cut at the block `name` inside."""

        def on_entry(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            args, kwargs, self.leaves[name] = _with_leaf(args, kwargs)
            self.calls[name] = (args, kwargs)
            return args, kwargs

        def on_exit(module: nn.Module, args: Any, output: Any) -> Any:
            self.outputs[name] = output[0] if isinstance(output, tuple) else output
            if name != self.last_block:
                return None
            self.tail = self.outputs[name].detach().requires_grad_()
            return (self.tail, *output[1:]) if isinstance(output, tuple) else self.tail

        handles = [
            block.register_forward_pre_hook(on_entry, with_kwargs=True),
            block.register_forward_hook(on_exit),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _rerun(
    index: int, block: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]], attach: Attach
) -> Tensor:
    args, kwargs = call
    with torch.enable_grad(), in_float32(block), attach(index):
        output = block(*args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


def _with_leaf(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """The call of a block with its hidden states replaced by a leaf that collects a gradient."""
    if args:
        leaf = args[0].detach().requires_grad_()
        return (leaf, *args[1:]), kwargs, leaf
    leaf = kwargs["hidden_states"].detach().requires_grad_()
    return args, {**kwargs, "hidden_states": leaf}, leaf


@contextmanager
def _in_float32_while_running(block: nn.Module) -> Iterator[None]:
    contexts: list[ExitStack] = []

    def enter(module: nn.Module, args: Any) -> None:
        stack = ExitStack()
        stack.enter_context(in_float32(module))
        contexts.append(stack)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        contexts.pop().close()

    handles = [
        block.register_forward_pre_hook(enter),
        block.register_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        while contexts:
            contexts.pop().close()


@contextmanager
def _without_gradients(block: nn.Module) -> Iterator[None]:
    """Inside, no graph is recorded while `block` runs."""
    modes: list[torch.no_grad] = []

    def enter(module: nn.Module, args: Any) -> None:
        mode = torch.no_grad()
        mode.__enter__()
        modes.append(mode)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        modes.pop().__exit__(None, None, None)

    handles = [
        block.register_forward_pre_hook(enter),
        block.register_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
