"""Relation KL: which tokens of a sequence are alike, in one late layer (MiniLM, Wang et al. 2021;
the attention loss of BitDistill, Wu et al. 2025, algorithm 1).

    of each of the projections to queries, keys and values:
    X (T, width) -> G groups of width / G channels, each row L2-normalised
    R_g = softmax over tokens of X_g X_g^T / T,            T = 1
    term of token t = mean over g of KL(R_teacher[t] || R_student[t]),  summed over the projections

The rows are divided by the number of groups once; a release of BitDistill does so twice, which is G
times smaller. With the dot products over sqrt(d) instead of the normalisation the term is 100 to
340 times larger. So a weight means nothing without these definitions: choose it by the norms of the
gradients (`TokenLoss.gradient_norms`), 0.1 to 1 of the cross-entropy's.

Rows are the predictions that count, columns all tokens of the sequence but padding, later ones too.
The relations of a batch take projections x groups x B x T^2 float32 numbers, on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...base.errors import UsageError
from ...ops.divergence import precise
from .hidden import block_pairs
from .terms import Rows, Term
from .views import Positions, View

PADDING_SCORE = -1e9
PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


class RelationKL(Term):
    """layer: the index of the student's block, negative from the end; teacher_layer: of the
    teacher's, None for the same. groups: G. projections: modules of a block, whose outputs are
    compared; the widths of student and teacher may differ.
    """

    needs_teacher = needs_states = True

    def __init__(
        self,
        layer: int,
        weight: float = 1.0,
        teacher_layer: int | None = None,
        groups: int = 32,
        temperature: float = 1.0,
        projections: Sequence[str] = PROJECTIONS,
    ) -> None:
        super().__init__(weight)
        self.layer = layer
        self.teacher_layer = layer if teacher_layer is None else teacher_layer
        self.groups, self.temperature, self.projections = groups, temperature, tuple(projections)

    def student_modules(self, student: nn.Module, teacher: nn.Module | None) -> list[str]:
        """See `Term`."""
        assert teacher is not None
        ((_, block, teacher_block),) = block_pairs(
            student, teacher, {self.layer: self.teacher_layer}
        )
        self._blocks = (block, teacher_block)
        return self._names(student, block)

    def teacher_modules(self, student: nn.Module, teacher: nn.Module) -> list[str]:
        """See `Term`."""
        return self._names(teacher, self._blocks[1])

    def rows(self, student: View, teacher: View | None, positions: Positions) -> Rows:
        """See `Term`."""
        assert teacher is not None
        total = torch.zeros(len(positions), device=positions.indices.device)
        for projection in self.projections:
            log_q, log_p = (
                relations(
                    view.outputs[f"{block}.{projection}"],
                    positions.attention_mask,
                    self.groups,
                    self.temperature,
                )
                for view, block in zip((student, teacher), self._blocks, strict=True)
            )
            kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean(1)
            total = total + positions.select(kl)
        return total

    def _names(self, model: nn.Module, block: str) -> list[str]:
        names = [f"{block}.{projection}" for projection in self.projections]
        modules = dict(model.named_modules())
        for name in names:
            if name not in modules:
                children = [key for key, _ in modules[block].named_modules() if key]
                raise UsageError(f"there is no {name}; {block} has {', '.join(children)}")
        return names


def relations(
    outputs: Float[Tensor, "batch length width"],
    mask: Bool[Tensor, "batch length"],
    groups: int,
    temperature: float,
) -> Float[Tensor, "batch groups length length"]:
    """log R, float32. Raises UsageError when the width is no multiple of `groups`."""
    batch, length, width = outputs.shape
    if width % groups:
        raise UsageError(f"{groups} groups do not divide a projection of width {width}")
    with torch.autocast(outputs.device.type, enabled=False):
        x = precise(outputs).view(batch, length, groups, width // groups).transpose(1, 2)
        x = torch.nn.functional.normalize(x, dim=-1)
        scores = x @ x.transpose(2, 3) / temperature
    # Not -inf: a sequence of padding only would give NaN, also to the gradient.
    return scores.masked_fill(~mask[:, None, None, :], PADDING_SCORE).log_softmax(-1)
