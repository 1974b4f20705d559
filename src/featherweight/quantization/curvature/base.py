"""Curvature of a linear layer as two Kronecker factors, which say how much an error in a weight
costs.

For the error D = W - W_hat, KL(original || light) of a sequence is about
1/2 scale * tr(H_O D H_I D^T), where H_O (m x m) is the output side and H_I (n x n) the input side.
The factors are collected once from calibration text, with a seed, and can be saved and used again.
Under torch.distributed the sums of all ranks are added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...base.events import Listener, silent
from ...models import structure
from ...models.anatomy import Anatomy


@dataclass(frozen=True)
class Factors:
    """The curvature of one layer with m outputs and n inputs.

    gram: E[x x^T], the mean over tokens of the inputs x. fisher_input, output: the input side H_I
    and the output side H_O of the Kronecker-factored Fisher information; None when they were not
    collected. scale: the factor c with which c tr(H_O) tr(H_I) equals E||G||^2, where the gradient
    G of the weights is summed over the tokens of a sequence. tokens, sequences: how many were read.
    """

    gram: Float[Tensor, "n n"]
    fisher_input: Float[Tensor, "n n"] | None = None
    output: Float[Tensor, "m m"] | None = None
    scale: float = 1.0
    tokens: int = 0
    sequences: int = 0

    @property
    def input(self) -> Float[Tensor, "n n"]:
        """The input side of the two-sided loss: that of the Fisher information when it was
        collected, else the Gram matrix.
        """
        return self.gram if self.fisher_input is None else self.fisher_input

    def one_sided(self) -> Factors:
        """The Gram matrix alone, for the error of the layer's own outputs. `gating.py` uses it for
        layers whose output side does not help.
        """
        return replace(self, fisher_input=None, output=None, scale=1.0)


class Curvature(ABC):
    """Abstract base of the methods that measure how much an error in a weight costs.

    Implementations are final frozen dataclasses; their fields say what is collected and with which
    seed. Factors are collected for each linear layer inside the blocks, under its full name, and
    for the head, where every method collects the Gram matrix only. `two_sided`: whether the method
    collects an output side. `batch`: the number of sequences in a pass.
    """

    two_sided: ClassVar[bool]
    batch: int

    @abstractmethod
    def accumulate(
        self,
        model: nn.Module,
        tokens: Int[Tensor, "all seq"],
        indices: Sequence[int],
        sums: Sums,
        listener: Listener,
    ) -> None:
        """Run `model` on the sequences `indices` of `tokens` (sequences, seq) and add what it shows
        to `sums`.

        `listener` receives an event for each batch. Raises BadInput when an input of a layer, or a
        logit, is not finite.
        """

    @abstractmethod
    def factors(self, sums: Sums, name: str) -> Factors:
        """The factors of the layer `name`, computed from complete sums."""

    @abstractmethod
    def memory(self, anatomy: Anatomy, length: int) -> int:
        """The estimated peak memory of a collection in bytes, without the memory of the model.

        length: number of tokens in a sequence.
        """

    def sums_bytes(self, anatomy: Anatomy) -> int:
        """Bytes of all running sums. A saved collection is half as large, because only the lower
        triangles are saved.
        """
        inputs = sum(4 * width * width for width in anatomy.input_widths.values())
        sums = inputs + 4 * anatomy.hidden_width**2  # the last is the Gram of the head's input
        if self.two_sided:
            sums += sum(4 * (m**2 + n**2) for m, n in anatomy.block_linears.values())
        return sums

    def identity_factors(
        self, rows: int, columns: int, device: torch.device | None = None
    ) -> Factors:
        """Identity matrices in place of the factors of a rows x columns matrix, so that the time
        and the memory of a layer can be measured before curvature is collected.
        """
        gram = torch.eye(columns, device=device)
        if not self.two_sided:
            return Factors(gram, tokens=1, sequences=1)
        return Factors(gram, gram, torch.eye(rows, device=device), tokens=1, sequences=1)

    def collect(
        self, model: nn.Module, tokens: Int[Tensor, "sequences seq"], listener: Listener = silent
    ) -> dict[str, Factors]:
        """Factors of every linear layer inside the blocks of `model`, and of its head, by full
        name.

        tokens: token ids of the calibration text. listener: receives an event for each batch.
        Under torch.distributed each rank reads every world-size-th sequence, and the sums of all
        ranks are added. Raises BadInput as `accumulate` does.
        """
        structure.check_language_model(model)
        sums = Sums()
        self.accumulate(model, tokens, share_of_rank(len(tokens)), sums, listener)
        sums.all_reduce()
        return {name: self.factors(sums, name) for name in sums.owners}


# Rows of a running sum that one product adds to. Narrow strips skip most of the upper triangle.
STRIP = 192
# Numbers that autograd saves for one token of one block, in units of (hidden, intermediate) width;
# measured on Llama blocks.
HIDDEN_ACTIVATIONS, INTERMEDIATE_ACTIVATIONS = 14, 6


class Sums:
    """Running sums over sequences: square float32 matrices and single numbers, by name.

    `owners` maps each layer to the layer under whose name the Gram matrix of their common input is
    stored. The matrices are symmetric, and only their lower triangles are computed and saved. So a
    collection that was interrupted and resumed equals an uninterrupted one bit for bit.
    """

    def __init__(self) -> None:
        self.matrices: dict[str, Tensor] = {}
        self.numbers: dict[str, float] = {}
        self.owners: dict[str, str] = {}
        self.tokens = 0
        self.sequences = 0

    def add(self, key: str, left: Float[Tensor, "rows n"], right: Float[Tensor, "rows n"]) -> None:
        """Add left^T right, which must be symmetric, to the matrix `key`. Only the blocks of the
        product that touch the lower triangle are computed.
        """
        n = left.shape[1]
        if key not in self.matrices:
            self.matrices[key] = torch.zeros(n, n, device=left.device)
        for start in range(0, n, STRIP):
            rows = slice(start, start + STRIP)
            self.matrices[key][rows, : start + STRIP].addmm_(
                left[:, rows].T, right[:, : start + STRIP]
            )

    def count(self, key: str, value: float) -> None:
        self.numbers[key] = self.numbers.get(key, 0.0) + value

    def all_reduce(self) -> None:
        """Sum over the ranks of torch.distributed, when it runs."""
        if not (dist.is_available() and dist.is_initialized()):
            return
        for key in sorted(self.matrices):
            dist.all_reduce(self.matrices[key])
        keys = sorted(self.numbers)
        device = next(iter(self.matrices.values())).device if self.matrices else torch.device("cpu")
        counts = [self.numbers[key] for key in keys] + [self.tokens, self.sequences]
        vector = torch.tensor(counts, dtype=torch.float64, device=device)
        dist.all_reduce(vector)
        self.numbers = dict(zip(keys, vector[:-2].tolist(), strict=True))
        self.tokens, self.sequences = int(vector[-2]), int(vector[-1])

    def symmetric(self, key: str) -> Float[Tensor, "n n"]:
        """The full matrix from its lower triangle."""
        lower = self.matrices[key].tril()
        return lower + lower.tril(-1).T


def block_activation_bytes(anatomy: Anatomy, num_tokens: int) -> int:
    """Bytes of the activations of one block that are in memory while `num_tokens` tokens pass
    through it.
    """
    widths = HIDDEN_ACTIVATIONS * anatomy.hidden_width + INTERMEDIATE_ACTIVATIONS * anatomy.widest
    return 4 * num_tokens * widths


def share_of_rank(count: int) -> list[int]:
    """Indices of the sequences that this process takes."""
    if dist.is_available() and dist.is_initialized():
        return list(range(dist.get_rank(), count, dist.get_world_size()))
    return list(range(count))
