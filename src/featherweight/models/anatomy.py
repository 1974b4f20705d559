"""The anatomy of a model as plain data: names and shapes of its blocks, linear layers, embedding
and head.

`Anatomy.of` uses `structure.py` to find it in a model, which may be a skeleton on the meta device.
Plans, memory estimates and reports need only the anatomy and not the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from . import structure


@dataclass(frozen=True)
class Anatomy:
    """Names and shapes of the parts of a model.

    Names are full module names; shapes are (outputs, inputs) for linear layers and (rows, width)
    for the embedding. `linears`: every linear layer in module order, with the head unless it is
    tied. `input_keys`: each linear layer inside a block -> the first linear layer that reads the
    same tensor. `is_tied`: whether the head shares the table of the embedding. `num_parameters`: a
    shared parameter counts once. `unreached`: linear layers inside the blocks that no forward pass
    calls. `weights_read`: linear layers that are not among `linears`, because the model's code
    reads their weights instead of calling them, or their class computes more than a product with
    them, so that they cannot be compressed.
    """

    blocks: tuple[str, ...]
    linears: Mapping[str, tuple[int, int]]
    input_keys: Mapping[str, str]
    embedding: str
    embedding_shape: tuple[int, int]
    head: str | None
    is_tied: bool
    num_parameters: int
    unreached: frozenset[str] = frozenset()
    weights_read: frozenset[str] = frozenset()

    @staticmethod
    def of(model: nn.Module) -> Anatomy:
        """The anatomy of `model`, whose parameters may be on the meta device.

        Raises UsageError when the model has no blocks, no linear layers or no embedding, when it
        is a mixture of experts, or when it cannot run on token ids alone.
        """
        linears = structure.linears(model)
        groups, unreached, weights_read = structure.probe_inputs(model)
        weights_read |= {n for n, linear in linears.items() if not structure.is_product(linear)}
        embedding, head = structure.embedding(model), structure.head(model)
        is_tied = structure.is_tied(model)
        rows, width = model.get_parameter(f"{embedding}.weight").shape
        return Anatomy(
            blocks=tuple(name for name, _ in structure.blocks(model)),
            linears={
                name: (linear.out_features, linear.in_features)
                for name, linear in linears.items()
                if not (is_tied and name == head) and name not in weights_read
            },
            input_keys={
                name: group[0] for group in groups for name in group if name not in weights_read
            },
            embedding=embedding,
            embedding_shape=(rows, width),
            head=head,
            is_tied=is_tied,
            num_parameters=sum({id(p): p.numel() for p in model.parameters()}.values()),
            unreached=unreached - weights_read,
            weights_read=weights_read,
        )

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Every matrix that can be compressed, by name: the linears, then the embedding."""
        return {**self.linears, self.embedding: self.embedding_shape}

    @property
    def tables(self) -> list[str]:
        """Names of the embedding and of the head; one name when the head is tied."""
        return (
            [self.embedding] if self.is_tied or self.head is None else [self.embedding, self.head]
        )

    @property
    def block_linears(self) -> dict[str, tuple[int, int]]:
        """The linears inside the blocks, in order of the blocks."""
        return {
            name: shape
            for block in self.blocks
            for name, shape in self.linears.items()
            if name.startswith(f"{block}.")
        }

    @property
    def input_widths(self) -> dict[str, int]:
        """Width of every distinct input tensor of the linears inside the blocks, by input key."""
        return {self.input_keys[name]: shape[1] for name, shape in self.block_linears.items()}

    @property
    def hidden_width(self) -> int:
        """Width of the residual stream."""
        return self.embedding_shape[1]

    @property
    def widest(self) -> int:
        """The largest input or output width of a linear inside the blocks."""
        return max(max(shape) for shape in self.block_linears.values())

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return self.embedding_shape[0]
