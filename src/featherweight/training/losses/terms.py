"""Terms of a loss of tokens that compare next-token distributions: q the student's, p the
teacher's.

Each gives one number for each prediction, by `ops.divergence`, in chunks of positions. The factor
of a term is its weight; of the terms with a temperature T, weight T^2, which keeps the size of the
gradient (Hinton et al. 2015). Cross-entropy has no temperature and no such factor.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import partial
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from ...base.errors import BadInput, UsageError
from ...ops import divergence
from .views import Positions, View

TOP_KEYS = ("top_ids", "top_log_p", "log_tail", "temperature")

Logits = Float[Tensor, "rows vocabulary"]
Rows = Float[Tensor, " rows"]


class Term(nn.Module, ABC):
    """Abstract base. weight: of this term in the sum. needs_teacher: a teacher, or its logits in
    the batch; needs_states: a teacher, because the term reads the outputs of its modules.
    """

    needs_teacher: ClassVar[bool] = False
    needs_states: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    @property
    def name(self) -> str:
        """The class in lower case: forward_kl."""
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*", type(self).__name__)
        return "_".join(words).lower()

    @property
    def factor(self) -> float:
        """What the sum is multiplied by."""
        return self.weight

    def student_modules(self, student: nn.Module, teacher: nn.Module | None) -> list[str]:
        """The modules of the student whose outputs this term reads."""
        return []

    def teacher_modules(self, student: nn.Module, teacher: nn.Module) -> list[str]:
        """The modules of the teacher whose outputs this term reads."""
        return []

    @abstractmethod
    def rows(self, student: View, teacher: View | None, positions: Positions) -> Rows:
        """The term for each prediction, float32."""

    def extra_repr(self) -> str:
        """The settings as text; a resumed run compares them."""
        settings = {key: item for key, item in vars(self).items() if key[0] != "_"}
        settings.pop("training")
        return ", ".join(f"{key}={setting!r}" for key, setting in settings.items())


class CrossEntropy(Term):
    """-log q(next token)."""

    def rows(self, student: View, teacher: View | None, positions: Positions) -> Rows:
        """See `Term`."""
        return divergence.row_losses(divergence.cross_entropy, student.logits, positions.targets)


class Distillation(Term):
    """Abstract: a divergence from the whole distribution of the teacher at a temperature."""

    needs_teacher = True

    def __init__(self, weight: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__(weight)
        if not temperature > 0:
            raise UsageError(f"temperature={temperature} must be above 0")
        self.temperature = temperature

    @property
    def factor(self) -> float:
        """See `Term`."""
        return self.weight * self.temperature**2

    @abstractmethod
    def divergence(self, student: Logits, teacher: Logits) -> Rows:
        """The divergence of each row of logits."""

    def rows(self, student: View, teacher: View | None, positions: Positions) -> Rows:
        """See `Term`."""
        assert teacher is not None
        return divergence.row_losses(self.divergence, student.logits, teacher.logits)


class ForwardKL(Distillation):
    """KL(p || q): the usual one; the student covers everything that the teacher would say."""

    def divergence(self, student: Logits, teacher: Logits) -> Rows:
        """See `Distillation`."""
        return divergence.forward_kl(student, teacher, self.temperature)


class ReverseKL(Distillation):
    """KL(q || p): the student stays with what the teacher says; for small generators."""

    def divergence(self, student: Logits, teacher: Logits) -> Rows:
        """See `Distillation`."""
        return divergence.reverse_kl(student, teacher, self.temperature)


class PolicyGradientKL(Term):
    """KL(q || p) from the tokens that the student itself drew: log q - log p of each of them, with
    the gradient of a policy whose reward is log p - log q, (log q - log p) grad log q.

    Its expectation over the draws is the gradient of `ReverseKL` at each position; what later
    tokens pay is left out (MiniLLM's one-step form, Gu et al. 2024, with discount 0). It needs two
    log-probabilities a token instead of two distributions. Only for tokens that were drawn from q
    at temperature 1 with these weights.
    """

    needs_teacher = True

    def rows(self, student: View, teacher: View | None, positions: Positions) -> Rows:
        """See `Term`."""
        assert teacher is not None
        log_q, log_p = (
            -divergence.row_losses(divergence.cross_entropy, side.logits, positions.targets)
            for side in (student, teacher)
        )
        cost = (log_q - log_p).detach()
        return cost * (1 + log_q - log_q.detach())


class TotalVariation(Distillation):
    """1/2 sum |p - q|: 1 - the acceptance rate of the student's drafts."""

    def divergence(self, student: Logits, teacher: Logits) -> Rows:
        """See `Distillation`."""
        return divergence.total_variation(student, teacher, self.temperature)


class SkewKL(Distillation):
    """KL(p || alpha p + (1 - alpha) q); DistiLLM's, for text of the teacher."""

    def __init__(self, alpha: float = 0.1, weight: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__(weight, temperature)
        self.alpha = divergence.check_share("alpha", alpha, "ForwardKL")

    def divergence(self, student: Logits, teacher: Logits) -> Rows:
        """See `Distillation`."""
        return divergence.skew_kl(student, teacher, self.alpha, self.temperature)


class SkewReverseKL(Distillation):
    """KL(q || (1 - alpha) p + alpha q); DistiLLM's, for text of the student."""

    def __init__(self, alpha: float = 0.1, weight: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__(weight, temperature)
        self.alpha = divergence.check_share("alpha", alpha, "ReverseKL")

    def divergence(self, student: Logits, teacher: Logits) -> Rows:
        """See `Distillation`."""
        return divergence.skew_reverse_kl(student, teacher, self.alpha, self.temperature)


class JensenShannon(Distillation):
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, as in GKD; its limits
    are `ForwardKL` and `ReverseKL`, and have these names only.
    """

    def __init__(self, beta: float = 0.5, weight: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__(weight, temperature)
        self.beta = divergence.check_share("beta", beta, "ForwardKL", "ReverseKL")

    def divergence(self, student: Logits, teacher: Logits) -> Rows:
        """See `Distillation`."""
        return divergence.jensen_shannon(student, teacher, self.beta, self.temperature)


class TopKKL(Term):
    """The KL from the k most likely tokens of a cached answer, see `divergence.top_k_kl`.

    The batch has `top_ids` and `top_log_p` (B, T, k), `log_tail` (B, T), whose row t is the
    distribution after token t, and the `temperature` they were computed at. Another temperature
    cannot be had from them, so it is refused (BadInput).
    """

    def __init__(
        self, tail_rule: str = "tail", weight: float = 1.0, temperature: float = 1.0
    ) -> None:
        super().__init__(weight)
        if tail_rule not in divergence.TAIL_RULES:
            raise UsageError(f"tail_rule={tail_rule!r}: choose {', '.join(divergence.TAIL_RULES)}")
        self.tail_rule, self.temperature = tail_rule, temperature

    @property
    def factor(self) -> float:
        """See `Term`."""
        return self.weight * self.temperature**2

    def rows(self, student: View, teacher: View | None, positions: Positions) -> Rows:
        """See `Term`."""
        batch = positions.batch
        if absent := [key for key in TOP_KEYS if key not in batch]:
            raise BadInput(f"the batch has no {', '.join(absent)}: the teacher's cached answers")
        if float(batch["temperature"]) != self.temperature:
            raise BadInput(
                f"the cached answers are those at temperature {float(batch['temperature'])}, the "
                f"loss is at {self.temperature}; use that of the cache, or compute it again"
            )
        ids, log_p, log_tail = (positions.select(batch[key]) for key in TOP_KEYS[:3])
        if len(ids) and int(ids.max()) >= student.vocabulary:
            raise BadInput(
                f"the cached answers have token {int(ids.max())}, the student's vocabulary ends at "
                f"{student.vocabulary}; they belong to another vocabulary"
            )
        definition = partial(
            divergence.top_k_kl, tail_rule=self.tail_rule, temperature=self.temperature
        )
        return divergence.row_losses(definition, student.logits, ids, log_p, log_tail)
