"""The common part of both Fisher collections: labels sampled from the model itself, the forward and
backward passes, and the absolute scale.

Labels are drawn from the model's own softmax at every position (temperature 1), never taken from
the text. So the estimate is of the true Fisher information, which is the Hessian of KL(original ||
light) at the original.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...base.errors import BadInput
from ...base.events import Listener, track
from ...base.seeds import seed_of
from ...models.anatomy import Anatomy
from ...models.observe import Site, linear_observer, observe, sites
from .base import Curvature, Factors, Sums, block_activation_bytes
from .gram import InputObserver, input_sites, mean_gram

# Called with a layer's name, its inputs (batch, seq, n) and the gradient of its outputs (batch,
# seq, m).
GradientObserver = Callable[[str, Tensor, Tensor], None]


@dataclass(frozen=True)
class LabelSampler:
    """Maps logits to the gradient of the summed cross-entropy, p - onehot(label), for labels that
    are drawn from the softmax p itself.

    seed: of the draws. sequences: the index of each sequence of the batch; each has its own
    generator.
    """

    seed: int
    sequences: list[int]

    def __call__(
        self, logits: Float[Tensor, "batch seq vocab"]
    ) -> Float[Tensor, "batch seq vocab"]:
        if not bool(torch.isfinite(logits).all()):
            raise BadInput(
                "the model's logits are not finite on the calibration text; "
                "the model or its dtype overflows"
            )
        gradient = torch.empty_like(logits)
        for row, sequence in enumerate(self.sequences):
            # The labels are drawn on the CPU, so that they do not depend on the device.
            generator = torch.Generator().manual_seed(seed_of("labels", self.seed, sequence))
            p = torch.softmax(logits[row].float(), -1)
            labels = torch.multinomial(p.cpu(), 1, generator=generator).to(p.device)
            p.scatter_add_(1, labels, torch.full_like(labels, -1, dtype=p.dtype))
            gradient[row] = p
        return gradient


@dataclass(frozen=True)
class Fisher(Curvature):
    """Abstract base of the methods that collect the Fisher information.

    `seed`: of the sampled labels. Each sequence has a generator of its own, so the labels do not
    depend on how sequences are distributed over batches and ranks. `batch`: number of sequences in
    a pass. `keep_graphs`: keep the activations of all blocks for the backward pass, which saves
    computing each block a second time.
    """

    two_sided: ClassVar[bool] = True
    seed: int = 0
    batch: int = 4
    keep_graphs: bool = True

    @abstractmethod
    def gradient_observer(self, sums: Sums, sequences: list[int]) -> GradientObserver:
        """A function that adds the inputs and output gradients of one batch to `sums`.

        sequences: the indices of the sequences in the batch.
        """

    def memory(self, anatomy: Anatomy, length: int) -> int:
        sums, num_blocks = self.sums_bytes(anatomy), len(anatomy.blocks)
        num_tokens = self.batch * length
        logits = 3 * num_tokens * anatomy.vocabulary * 4
        activations = block_activation_bytes(anatomy, num_tokens) * (
            num_blocks if self.keep_graphs else 1
        )
        block_inputs = 4 * num_tokens * anatomy.hidden_width * num_blocks
        return max(sums + activations + block_inputs + logits, sums + sums // 2)

    def accumulate(
        self,
        model: nn.Module,
        tokens: Tensor,
        indices: Sequence[int],
        sums: Sums,
        listener: Listener,
    ) -> None:
        inputs, observe_input = input_sites(model), InputObserver(sums)
        outputs = [site for site in sites(model, "output") if site.block is not None]
        keep_graphs = self.keep_graphs and all(p.dtype == torch.float32 for p in model.parameters())
        steps = range(0, len(indices), self.batch)
        for start in track(steps, "curvature", len(steps), listener):
            sequences = list(indices[start : start + self.batch])
            part = tokens[sequences]
            observe_gradient = linear_observer(self.gradient_observer(sums, sequences))

            def observer(site: Site, value: Tensor, gradient: Tensor | None) -> None:
                if site.kind == "input":
                    observe_input(site, value, None)
                observe_gradient(site, value, gradient)  # noqa: B023 - called before the next step begins

            observe(
                model,
                part,
                [*outputs, *inputs],
                observer,
                logit_gradient=LabelSampler(self.seed, sequences),
                keep_graphs=keep_graphs,
                check_finite=True,
                require_all=False,
            )
            sums.tokens += part.numel()
            sums.sequences += len(part)


def two_sided_factors(sums: Sums, name: str, count: int) -> Factors:
    """The factors of the layer `name` from sums over `count` samples.

    Their scale is c = E||G||^2 / (tr H_O tr H_I), where the expectation is over sequences. For the
    head only the Gram matrix is collected, because its output side would have the size vocabulary x
    vocabulary.
    """
    if f"output/{name}" not in sums.matrices:
        return Factors(mean_gram(sums, name), tokens=sums.tokens, sequences=sums.sequences)
    h_in = sums.symmetric(f"input/{name}") / count
    h_out = sums.symmetric(f"output/{name}") / count
    h_in, h_out = h_in / h_out.shape[0], h_out / h_in.shape[0]
    traces = float(h_in.diagonal().double().sum() * h_out.diagonal().double().sum())
    scale = sums.numbers[f"squares/{name}"] / sums.sequences / traces if traces > 0 else 0.0
    return Factors(mean_gram(sums, name), h_in, h_out, scale, sums.tokens, sums.sequences)
