"""Terms that compare hidden states: the output of a block of the student with that of a block of
the teacher.

    HiddenMSE       mean_c (h_s A - h_t)_c^2 / var_c(h_t)      of each token, c over channels
    HiddenCosine    1 - cos(h_s A, h_t)

The variance is that of the token's own channels, so the term depends on no other token and the
mean over a batch does not depend on how it is divided. A is the identity when the widths agree, the
known channels of a pruned student, or a learned matrix that starts as a truncated identity. Massive
channels, a thousand times larger than the others, would be all that the term sees; name them in
`without`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...base.errors import UsageError
from ...models import structure
from ...ops.divergence import precise
from .terms import Rows, Term
from .views import Positions, View

States = Float[Tensor, "rows width"]


class _Hidden(Term):
    """Abstract: the mean over pairs of blocks.

    layers: index of the student's block -> that of the teacher's; None spreads the teacher's blocks
    evenly (`uniform_layers`). channels: the teacher's channels that the student has, in order.
    learned: (student's width, teacher's width) of a learned A for each pair; needs `layers`.
    without: channels of the teacher, after `channels`, that do not count.
    """

    needs_teacher = needs_states = True

    def __init__(
        self,
        layers: Mapping[int, int] | None = None,
        weight: float = 1.0,
        channels: Sequence[int] | None = None,
        learned: tuple[int, int] | None = None,
        without: Sequence[int] = (),
    ) -> None:
        super().__init__(weight)
        self.layers = None if layers is None else dict(layers)
        self.channels = None if channels is None else list(channels)
        self.learned, self.without = learned, tuple(without)
        self.maps = nn.ModuleDict()
        if learned is not None:
            if layers is None:
                raise UsageError("a learned map needs `layers`, because each pair has its own")
            for index in layers:
                self.maps[str(index)] = _truncated_identity(*learned)

    @abstractmethod
    def distance(self, student: States, teacher: States) -> Rows:
        """The term for each pair of states, float32."""

    def student_modules(self, student: nn.Module, teacher: nn.Module | None) -> list[str]:
        """See `Term`."""
        assert teacher is not None
        self._pairs = block_pairs(student, teacher, self.layers)
        return [pair[1] for pair in self._pairs]

    def teacher_modules(self, student: nn.Module, teacher: nn.Module) -> list[str]:
        """See `Term`."""
        return [pair[2] for pair in block_pairs(student, teacher, self.layers)]

    def rows(self, student: View, teacher: View | None, positions: Positions) -> Rows:
        """See `Term`."""
        assert teacher is not None
        totals = []
        for index, student_name, teacher_name in self._pairs:
            states = precise(positions.select(student.outputs[student_name]))
            targets = precise(positions.select(teacher.outputs[teacher_name]))
            if self.channels is not None:
                targets = targets[:, self.channels]
            if str(index) in self.maps:
                states = self.maps[str(index)](states)
            if states.shape != targets.shape:
                raise UsageError(
                    f"block {index} of the student has width {states.shape[1]}, the teacher's "
                    f"{targets.shape[1]}; give the `channels` that were kept, or `learned` widths"
                )
            columns = [c for c in range(targets.shape[1]) if c not in set(self.without)]
            if self.without:
                states, targets = states[:, columns], targets[:, columns]
            totals.append(self.distance(states, targets))
        return torch.stack(totals).mean(0)


class HiddenMSE(_Hidden):
    """The squared error of a token's channels over their variance."""

    def distance(self, student: States, teacher: States) -> Rows:
        """See `_Hidden`."""
        variance = teacher.var(-1, correction=0).clamp_min(torch.finfo(teacher.dtype).tiny)
        return (student - teacher).square().mean(-1) / variance


class HiddenCosine(_Hidden):
    """1 - the cosine of the angle between a token's states."""

    def distance(self, student: States, teacher: States) -> Rows:
        """See `_Hidden`."""
        return 1 - torch.cosine_similarity(student, teacher, -1)


def uniform_layers(num_student: int, num_teacher: int) -> dict[int, int]:
    """Block i of the student -> the teacher's block at the same share of the depth; the last ones
    belong together.
    """
    return {
        index: round((index + 1) * num_teacher / num_student) - 1 for index in range(num_student)
    }


def block_pairs(
    student: nn.Module, teacher: nn.Module, layers: Mapping[int, int] | None
) -> list[tuple[int, str, str]]:
    """Index of the student's block, its name and that of the teacher's block. Negative indices
    count from the end. Raises UsageError for blocks that do not exist.
    """
    student_names = [name for name, _ in structure.blocks(student)]
    teacher_names = [name for name, _ in structure.blocks(teacher)]
    layers = layers or uniform_layers(len(student_names), len(teacher_names))
    for index, names in (
        *((i, student_names) for i in layers),
        *((i, teacher_names) for i in layers.values()),
    ):
        if not -len(names) <= index < len(names):
            raise UsageError(f"there is no block {index} among {len(names)}")
    return [(i, student_names[i], teacher_names[j]) for i, j in layers.items()]


def _truncated_identity(student_width: int, teacher_width: int) -> nn.Linear:
    linear: Any = nn.Linear(student_width, teacher_width, bias=False)
    nn.init.eye_(linear.weight)
    return linear
