"""Curvature says what an error in a weight costs: Kronecker factors of one linear layer.

KL(original || light) per sequence is about 1/2 scale * tr(H_O D H_I D^T), D = W - W_hat. Factors
are collected once, streamed to a folder, reusable and seeded; sums are all-reduced under
torch.distributed.
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
from ...models.anatomy import Anatomy


@dataclass(frozen=True)
class Factors:
    """The curvature of one layer with m outputs and n inputs.

    gram: E[x x^T], a mean over tokens. fisher_input, output: the sides of the Kronecker-factored
    Fisher information; None when they were not collected. scale: c of the Kronecker fit, from
    matching traces, E||G||^2 / (tr H_O tr H_I) with the gradient G summed over the tokens of a
    sequence. tokens, sequences: how many were read.
    """

    gram: Float[Tensor, "n n"]
    fisher_input: Float[Tensor, "n n"] | None = None
    output: Float[Tensor, "m m"] | None = None
    scale: float = 1.0
    tokens: int = 0
    sequences: int = 0

    @property
    def input(self) -> Float[Tensor, "n n"]:
        """The input side of the two-sided loss: the Fisher's where collected, else the Gram."""
        return self.gram if self.fisher_input is None else self.fisher_input

    def one_sided(self) -> Factors:
        """Factors for the layer's own loss only; the gate falls back to them."""
        return replace(self, fisher_input=None, output=None, scale=1.0)


class Curvature(ABC):
    """Abstract base of the ways to measure what an error in a weight costs.

    Implementations are final frozen dataclasses that say what is collected, and from which seed.
    Factors have the names of the linears inside the model's blocks, and that of the head, of which
    every method collects the Gram only. `two_sided` says whether an output side is collected,
    `batch` how many sequences a pass reads.
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
        """Add the sequences `indices` of `tokens` (sequences, seq) to `sums`.

        Raises BadInput when an input of a layer, or a logit, is not finite.
        """

    @abstractmethod
    def factors(self, sums: Sums, name: str) -> Factors:
        """The factors of one layer from finished sums."""

    @abstractmethod
    def memory(self, anatomy: Anatomy, length: int) -> int:
        """Estimated bytes at the peak of a collection, without those of the model itself.

        length: tokens of a sequence.
        """

    def sums_bytes(self, anatomy: Anatomy) -> int:
        """Bytes of all running sums. A saved collection takes half, because it holds triangles."""
        inputs = sum(4 * width * width for width in anatomy.input_widths.values())
        sums = inputs + 4 * anatomy.hidden_width**2  # the last is the Gram of the head's input
        if self.two_sided:
            sums += sum(4 * (m**2 + n**2) for m, n in anatomy.block_linears.values())
        return sums

    def identity_factors(
        self, rows: int, columns: int, device: torch.device | None = None
    ) -> Factors:
        """Identities in the place of the factors of a rows x columns matrix, to rehearse a run."""
        gram = torch.eye(columns, device=device)
        if not self.two_sided:
            return Factors(gram, tokens=1, sequences=1)
        return Factors(gram, gram, torch.eye(rows, device=device), tokens=1, sequences=1)

    def collect(
        self, model: nn.Module, tokens: Int[Tensor, "sequences seq"], listener: Listener = silent
    ) -> dict[str, Factors]:
        """Factors of every linear inside the blocks of `model`, and of its head, by full name.

        Under torch.distributed each rank reads every world-size-th sequence, and the sums are
        all-reduced. Raises as `accumulate` does.
        """
        sums = Sums()
        self.accumulate(model, tokens, share_of_rank(len(tokens)), sums, listener)
        sums.all_reduce()
        return {name: self.factors(sums, name) for name in sums.owners}


# Rows of a running sum that are added at once: few enough to skip most of the upper triangle.
STRIP = 192
# Numbers that autograd saves for one token of one block, in units of (hidden, intermediate) width;
# measured on Llama blocks.
HIDDEN_ACTIVATIONS, INTERMEDIATE_ACTIVATIONS = 14, 6


class Sums:
    """Running sums over sequences: square matrices in float32 by name, numbers, and input owners.

    `owners` maps each layer to the layer under whose name the Gram of their common input is stored.

    Only the lower triangles are meaningful (they are what is saved), so that a resumed collection
    equals an uninterrupted one bit for bit.
    """

    def __init__(self) -> None:
        self.matrices: dict[str, Tensor] = {}
        self.numbers: dict[str, float] = {}
        self.owners: dict[str, str] = {}
        self.tokens = 0
        self.sequences = 0

    def add(self, key: str, left: Float[Tensor, "rows n"], right: Float[Tensor, "rows n"]) -> None:
        """matrices[key] += left^T right, a symmetric product: only blocks that touch the lower
        triangle are computed.
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
