"""Finds the parts of a model from its structure, so that a new architecture needs no entry in a
list.

Blocks: the longest list of modules that contain linear layers. Linear layers: every `nn.Linear` by
its full name, with the head. Embedding and head: the modules that the model's own accessors return.
The linear layers that read the same tensor (q/k/v, gate/up) are not guessed from names: two tokens
are run through the model, and hooks record the input tensor of every linear layer.

A model without linear layers, a mixture of experts, or a model with other weights in 3-D parameters
(which no `nn.Linear` contains), raises UsageError, so that no weights are silently left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..base.errors import UsageError


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name and module of each block, in order.

    The blocks are the items of the longest outermost ModuleList whose items contain linear layers,
    dense or compressed. Raises UsageError when there is none.
    """
    longest = _longest_list(model)
    if longest is None:
        raise UsageError(
            f"{type(model).__name__} has no repeated blocks with linear layers: nothing to quantize"
        )
    name, items = longest
    return [(f"{name}.{i}" if name else str(i), block) for i, block in enumerate(items)]


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Every `nn.Linear` by its full name, in module order, with the head.

    Raises UsageError when there is none, for a mixture of experts, and when blocks have other
    weights that no linear layer holds, which a plan for linear layers would silently leave out.
    """
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    _check_not_shared(model)
    if not layers:
        raise UsageError(
            f"{type(model).__name__} has no linear layers (torch.nn.Linear): nothing to quantize"
        )
    check_no_experts(model)
    if stacks := stacked_matrices(model):
        names = ", ".join(f"{name} {tuple(p.shape)}" for name, p in list(stacks.items())[:3])
        further_names = f" and {len(stacks) - 3} more" if len(stacks) > 3 else ""
        raise UsageError(
            "this model has weights in 3-D parameters that no linear layer covers: "
            f"{names}{further_names}; such models are not supported yet"
        )
    return layers


def check_no_experts(model: nn.Module) -> None:
    """Raise UsageError, naming type and module, when `model` is a mixture of experts.

    Every such model of transformers has modules with weights that are called experts, by their own
    name or by that of their class, whether each expert is a module or all are one 3-D parameter. A
    model whose configuration asks for no experts has no such module.
    """
    for name, module in model.named_modules():
        words = f"{name.rpartition('.')[2]} {type(module).__name__}".lower()
        if "expert" in words and next(module.parameters(), None) is not None:
            model_type = getattr(getattr(model, "config", None), "model_type", None)
            raise UsageError(
                f"{model_type or type(model).__name__} is a mixture of experts ({name} is a "
                f"{type(module).__name__}), which is not supported yet; choose a dense model"
            )


def stacked_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters inside the blocks, by full name, that hold several matrices: three dimensions
    of more than one number. Convolution kernels do not count.
    """
    stacks: dict[str, nn.Parameter] = {}
    for block_name, block in blocks(model) if _longest_list(model) else ():
        for name, module in block.named_modules(prefix=block_name):
            if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
                continue
            for key, parameter in module.named_parameters(prefix=name, recurse=False):
                if sum(size > 1 for size in parameter.shape) >= 3:
                    stacks[key] = parameter
    return stacks


def embedding(model: nn.Module) -> str:
    """Full name of the module that turns token ids into vectors.

    Raises UsageError when the model has none.
    """
    get_embedding = getattr(model, "get_input_embeddings", None)
    module = (
        get_embedding()
        if callable(get_embedding)
        else next((m for m in model.modules() if isinstance(m, nn.Embedding)), None)
    )
    name = _name_of(model, module)
    if name is None:
        raise UsageError(f"{type(model).__name__} has no token embedding")
    return name


def head(model: nn.Module) -> str | None:
    """Full name of the module that turns vectors into logits, tied or not; None for a model without
    a head.
    """
    get_head = getattr(model, "get_output_embeddings", None)
    return _name_of(model, get_head() if callable(get_head) else getattr(model, "lm_head", None))


def check_language_model(model: nn.Module) -> None:
    """Raise UsageError, with the reason, unless `model` can be quantized in memory: it must be a
    language model with a head, and its weights must be there.
    """
    is_pretrained = hasattr(model, "config") and hasattr(model, "get_output_embeddings")
    if is_pretrained and head(model) is None:
        raise UsageError(
            f"{type(model).__name__} is not a causal language model: it has no language-model "
            "head; load the model with fw.load or AutoModelForCausalLM"
        )
    absent = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if absent:
        raise UsageError(
            f"{absent[0]} and {len(absent) - 1} more parameters are not in memory (offloaded to "
            "disk, or a skeleton on meta); load the model without a device map, or let "
            "`fw quantize` read its folder one matrix at a time"
        )


def is_tied(model: nn.Module) -> bool:
    """Whether the head uses the table of the embedding.

    It does when both have the same parameter, or when the head has no tensor of its own.
    """
    head_name = head(model)
    if head_name is None:
        return False
    module = model.get_submodule(head_name)
    if not [*module.parameters(), *module.buffers()]:
        return True
    table = getattr(model.get_submodule(embedding(model)), "weight", None)
    return table is not None and getattr(module, "weight", None) is table


def _check_not_shared(model: nn.Module) -> None:
    """Raise UsageError when one linear module has several names: it would be compressed under one
    name, and a folder would lack the others.
    """
    names: dict[nn.Module, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not is_linear(module):
            continue
        if module in names:
            raise UsageError(
                f"{names[module]} and {name} are one module that the model uses twice, which is "
                "not supported yet; give each place a copy (copy.deepcopy) first"
            )
        names[module] = name


def shared_inputs(model: nn.Module) -> list[tuple[str, ...]]:
    """Groups of linear layers of one block that read the same input tensor, in order of first use.

    Every linear layer inside the blocks is in exactly one group; o and down projections are mostly
    alone in theirs. The groups come from a run with two tokens, which also works on the meta
    device. A layer that this run does not reach, or calls with several inputs, has a group of its
    own. Raises UsageError when the model cannot run on token ids alone.
    """
    return probe_inputs(model)[0]


def probe_inputs(
    model: nn.Module,
) -> tuple[list[tuple[str, ...]], frozenset[str], frozenset[str]]:
    """(the groups of `shared_inputs`; the linear layers inside the blocks that no forward pass
    calls; those of them whose weights the model's own code reads, as Mamba does).

    Raises UsageError when the model cannot run on token ids alone.
    """
    block_of = {
        f"{block_name}.{name}": block_name
        for block_name, block in blocks(model)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    groups: dict[tuple[Any, ...], list[str]] = {}
    with _WeightReads(model, list(block_of)) as reads:
        keys = _probe(model, list(block_of))
    unreached = frozenset(block_of) - frozenset(keys)
    for name, key in (keys | dict.fromkeys(sorted(unreached))).items():
        groups.setdefault((block_of[name], *(key or (name,))), []).append(name)
    names_read = frozenset(name for name in unreached if name in reads.names)
    return [tuple(group) for group in groups.values()], frozenset(unreached), names_read


class _WeightReads(TorchFunctionMode):
    """While it is active, `names` collects the linear layers whose weight is an argument of a torch
    function. Those that are called count too.
    """

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.names: set[str] = set()
        self._name_of = {id(model.get_submodule(name).weight): name for name in names}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for argument in args:
            if id(argument) in self._name_of:
                self.names.add(self._name_of[id(argument)])
        return function(*args, **(kwargs or {}))


def is_product(linear: nn.Linear) -> bool:
    """Whether the layer computes x W^T + b, as far as two numbers of each size can tell."""
    forward: Any = type(linear).forward
    if forward is nn.Linear.forward:
        return True
    weight = torch.tensor([[1.0, 2.0], [3.0, -4.0], [0.5, 8.0]], device="cpu")
    x = torch.tensor([[2.0, -1.0]], device="cpu")
    for bias in (None, torch.tensor([1.0, -2.0, 4.0], device="cpu")):
        try:
            product = forward(SimpleNamespace(weight=weight, bias=bias), x)
        except Exception:  # it needs more than a weight and a bias
            return False
        if not torch.equal(product, nn.functional.linear(x, weight, bias)):
            return False
    return True


def _probe(model: nn.Module, names: list[str]) -> dict[str, tuple[Any, ...] | None]:
    """For each linear layer that is called, in order of first use, a key that identifies its input
    tensor; None when the layer is called with several inputs.
    """
    keys: dict[str, tuple[Any, ...] | None] = {}
    inputs: list[Tensor] = []  # references, so that no freed address is used for another tensor

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            inputs.append(x)
            address = id(x) if x.device.type == "meta" else x.data_ptr()
            key = (address, tuple(x.shape), x.stride(), x._version)
            keys[name] = key if keys.get(name, key) == key else None

        return hook

    handles = [
        model.get_submodule(name).register_forward_pre_hook(watch(name), with_kwargs=True)
        for name in names
    ]
    try:
        device = next(model.parameters()).device
        with evaluation_mode(model), _fixed_frequencies(model), torch.no_grad():
            # With `use_cache`, transformers does not read values of the position ids, which do not
            # exist on the meta device.
            model(input_ids=torch.arange(2, device=device).view(1, 2), use_cache=True)
    except (TypeError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"{type(model).__name__} cannot run on two token ids alone: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return keys


@contextmanager
def _fixed_frequencies(model: nn.Module) -> Iterator[None]:
    """Inside this context rotary frequencies do not depend on the length of the text, which has no
    value on the meta device.
    """
    modules: list[Any] = [
        module for module in model.modules() if "dynamic" in str(getattr(module, "rope_type", ""))
    ]
    types = [module.rope_type for module in modules]
    try:
        for module, rope_type in zip(modules, types, strict=True):
            is_mapping = isinstance(rope_type, dict)
            module.rope_type = dict.fromkeys(rope_type, "default") if is_mapping else "default"
        yield
    finally:
        for module, rope_type in zip(modules, types, strict=True):
            module.rope_type = rope_type


@contextmanager
def evaluation_mode(*models: nn.Module) -> Iterator[None]:
    """Inside this context the models are in evaluation mode; afterwards every module is as
    before.
    """
    training = [module for model in models for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _longest_list(model: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """The longest outermost list of modules with linear layers; of equally long ones the one with
    the most weights.

    Nested lists do not count, because the list of the experts of one block could be longer than the
    list of blocks.
    """
    lists: list[tuple[str, nn.ModuleList]] = []
    for name, module in model.named_modules():
        is_nested = any(name.startswith(f"{outer}.") or not outer for outer, _ in lists)
        if isinstance(module, nn.ModuleList) and not is_nested and any(map(_holds_linear, module)):
            lists.append((name, module))
    return max(lists, key=lambda item: (len(item[1]), _num_weights(item[1])), default=None)


def is_linear(module: nn.Module) -> bool:
    """Whether `module` is an `nn.Linear` or the compressed form of one."""
    # A compressed layer is no nn.Linear, and its class cannot be imported here, because
    # `quantization` imports `models`. But it has the same two attributes.
    return all(
        isinstance(getattr(module, width, None), int) for width in ("in_features", "out_features")
    )


def _holds_linear(module: nn.Module) -> bool:
    return any(map(is_linear, module.modules()))


def _num_weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _name_of(model: nn.Module, module: object) -> str | None:
    return next(
        (name for name, inner in model.named_modules() if inner is module and module is not None),
        None,
    )
