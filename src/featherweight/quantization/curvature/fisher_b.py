"""FisherB: both Kronecker sides of the Fisher information, where every sequence is a sample (sketch
B of YAQA, arXiv:2505.22988).

The gradient of a *sequence* is G = sum_t g_t x_t^T. Then H_I = E[G^T G] / m and
H_O = E[G G^T] / n, which is one step of the rank-1 power iteration on the rearranged Fisher
information, started at the identity. The estimate is unbiased. The absolute scale is
c = E||G||^2 / (tr H_O tr H_I).

The Gram matrix of the inputs is collected in the same pass. Cost: a forward pass, a backward pass
without weight gradients (and a second forward pass of the blocks unless their graphs are kept), and
the outer products, which are computed in one of two ways:
- exactly (`probes=None`), in the cheaper of two equal forms. The primal form computes G; the dual
  form uses G^T G = X^T (D D^T) X with T x T kernels and 4 T^2 (m + n) + 2 T (m^2 + n^2)
  multiplications for each sequence and layer. This costs more than the passes;
- with `probes=r`, G G^T is replaced by (G R)(G R)^T / r, and G^T G in the same way, where R holds
  random signs. The estimate is still unbiased. The G G^T of one sequence is far from the mean in
  any case, so r = 32 loses no measurable accuracy and needs an eighth of the multiplications.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.seeds import seed_of
from .base import Factors, Sums
from .fisher import Fisher, GradientObserver, two_sided_factors


@dataclass(frozen=True)
class FisherB(Fisher):
    """The Fisher information with every sequence as a sample.

    `probes`: number of random sign vectors for each sequence, drawn from `seed`; None computes the
    outer products exactly. Other arguments as in `Fisher`.
    """

    probes: int | None = 32

    def gradient_observer(self, sums: Sums, sequences: list[int]) -> GradientObserver:
        probe = None if self.probes is None else Probe(self.seed, sequences, self.probes)

        def add(name: str, x: Tensor, g: Tensor) -> None:
            x, g = x.float(), g.float()
            by_x, by_g, squares = (
                sequence_products(x, g) if probe is None else probed_products(x, g, probe)
            )
            sums.add(f"input/{name}", *by_x)
            sums.add(f"output/{name}", *by_g)
            sums.count(f"squares/{name}", squares)

        return add

    def factors(self, sums: Sums, name: str) -> Factors:
        return two_sided_factors(sums, name, sums.sequences)


class Probe:
    """Random signs for every sequence of a batch. They are drawn once for each width, and all
    layers of that width use them.
    """

    def __init__(self, seed: int, sequences: Sequence[int], probes: int) -> None:
        self.seed, self.sequences, self.probes = seed, sequences, probes
        self._signs: dict[int, Tensor] = {}

    def __call__(self, width: int, device: torch.device) -> Float[Tensor, "batch width probes"]:
        """The signs for vectors of `width` numbers. They are drawn on the CPU, so that they do not
        depend on the device.
        """
        if width not in self._signs:
            signs = []
            for sequence in self.sequences:
                generator = torch.Generator().manual_seed(
                    seed_of("probes", self.seed, width, sequence)
                )
                bits = torch.randint(0, 2, (width, self.probes), generator=generator, device="cpu")
                signs.append(bits.float() * 2 - 1)
            self._signs[width] = torch.stack(signs).to(device)
        return self._signs[width]


def probed_products(
    x: Float[Tensor, "batch seq n"], g: Float[Tensor, "batch seq m"], probe: Probe
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], float]:
    """Unbiased estimates of what `sequence_products` returns, from `probe.probes` random signs a
    sequence.
    """
    n, m, r = x.shape[-1], g.shape[-1], probe.probes
    gradient_columns = g.transpose(1, 2) @ (x @ probe(n, x.device))
    gradient_rows = x.transpose(1, 2) @ (g @ probe(m, x.device))
    by_column = gradient_columns.transpose(1, 2).reshape(-1, m)
    by_row = gradient_rows.transpose(1, 2).reshape(-1, n)
    squares = float(gradient_columns.square().sum(dtype=torch.float64)) / r
    return (by_row, by_row / r), (by_column, by_column / r), squares


def sequence_products(
    x: Float[Tensor, "batch seq n"], g: Float[Tensor, "batch seq m"], form: str = "auto"
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], float]:
    """Three results for the gradients G_b = g_b^T x_b of the sequences b: a pair (A, B) with
    A^T B = sum_b G_b^T G_b, a pair with A^T B = sum_b G_b G_b^T, and the number sum_b ||G_b||^2.

    form: "primal", "dual" (see above), or "auto" for the one with fewer multiplications.
    """
    (_, t, n), m = x.shape, g.shape[-1]
    dual = 4 * t * t * (m + n) + 2 * t * (m * m + n * n) <= 2 * t * m * n + 2 * m * n * (m + n)
    if form == "dual" or (form == "auto" and dual):
        kernel_x, kernel_g = x @ x.transpose(1, 2), g @ g.transpose(1, 2)
        squares = float((kernel_x * kernel_g).sum(dtype=torch.float64))
        weighted_x, weighted_g = kernel_g @ x, kernel_x @ g
        return (
            (x.reshape(-1, n), weighted_x.view(-1, n)),
            (g.reshape(-1, m), weighted_g.view(-1, m)),
            squares,
        )
    gradient = g.transpose(1, 2) @ x
    by_row, by_column = gradient.reshape(-1, n), gradient.transpose(1, 2).reshape(-1, m)
    return (
        (by_row, by_row),
        (by_column, by_column),
        float(gradient.square().sum(dtype=torch.float64)),
    )
