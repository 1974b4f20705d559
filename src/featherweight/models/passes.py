"""Forward and backward passes through a model block by block, so that the activations and float32
weights of only one block are in memory.

The model's own `forward` runs; hooks cut the autograd graph at the input of every block. Weights
that are not float32 (of a memory-mapped bfloat16 checkpoint) are converted when their block starts
and freed when it ends. The backward pass goes through the blocks from last to first. It computes
each block again from its saved input, unless the graphs were kept.

`attach(block)` is a context manager that installs the hooks of the caller in block number `block`,
or outside the blocks for None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .structure import blocks, evaluation_mode, head

Attach = Callable[[int | None], AbstractContextManager[None]]
Inputs = Mapping[str, Tensor]


@contextmanager
def in_float32(module: nn.Module) -> Iterator[None]:
    """Inside this context the parameters of `module` are float32; afterwards they are as before."""
    with _as_float32(module.parameters()):
        yield


@contextmanager
def _as_float32(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    originals = {p: p.data for p in parameters if p.dtype != torch.float32}
    try:
        for p in originals:
            p.data = p.data.float()
        yield
    finally:
        for p, data in originals.items():
            p.data = data


@contextmanager
def _outside_blocks_in_float32(model: nn.Module) -> Iterator[None]:
    """Inside this context embedding, head and outer norms are float32. The blocks are converted one
    at a time while they run, and their inputs must have the same dtype.
    """
    in_blocks = {id(p) for _, block in blocks(model) for p in block.parameters()}
    with _as_float32(p for p in model.parameters() if id(p) not in in_blocks):
        yield


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside this context the model is in evaluation mode and no parameter gets a gradient;
    afterwards both are as before.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    with evaluation_mode(model):
        try:
            for p in trainable:
                p.requires_grad_(False)
            yield
        finally:
            for p in trainable:
                p.requires_grad_(True)


def forward(model: nn.Module, inputs: Inputs, attach: Attach, needs_head: bool = False) -> None:
    """Run one forward pass of `model` on `inputs`, with the hooks of `attach`.

    Unless `needs_head`, the head gets its input (so that its hooks run) but computes no logits.
    """
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(frozen(model))
        stack.enter_context(_outside_blocks_in_float32(model))
        if not needs_head:
            stack.enter_context(_without_head_product(model))
        stack.enter_context(attach(None))
        for index, (_, block) in enumerate(blocks(model)):
            stack.enter_context(attach(index))
            stack.enter_context(_in_float32_while_running(block))
        model(**inputs, use_cache=False)


@contextmanager
def _without_head_product(model: nn.Module) -> Iterator[None]:
    """Inside this context the head returns one column of its input instead of logits. So its hooks
    run without the large matrix product.
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
    """Run a forward pass and propagate `logit_gradient(logits)` back through the whole model; no
    parameter gets a gradient.

    With `keep_graphs` the blocks are not computed a second time. This saves a forward pass, but the
    activations of all blocks stay in memory, and the weights must be float32.
    """
    named_blocks = blocks(model)
    cuts = _Cuts(named_blocks[-1][0])
    with ExitStack() as stack:
        stack.enter_context(frozen(model))
        stack.enter_context(_outside_blocks_in_float32(model))
        # Hooks run in the order of registration. The cuts come first, so that the caller's hooks
        # get the tensors after the cuts.
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
    """Cuts the autograd graph at the input of every block and after the last block. Each part
    starts at a leaf tensor, which collects the gradient.
    """

    def __init__(self, last_block: str) -> None:
        self.last_block = last_block
        self.calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.leaves: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.tail: Tensor

    @contextmanager
    def at(self, name: str, block: nn.Module) -> Iterator[None]:
        """Inside this context the graph is cut at the block `name`."""

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
    """The arguments of a block with the hidden states replaced by a leaf that collects a gradient,
    and that leaf.
    """
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
    """Inside this context no autograd graph is recorded while `block` runs."""
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
