"""How far two models with different vocabularies are apart at one place of a text.

Before a group of aligned tokens (see `alignment`) teacher and student have read the same bytes.
Let a_1 ... a_k be the teacher's tokens of the group, b_1 ... b_l the student's, p and q the
next-token distributions before it, and M the tokens of the same bytes in both vocabularies.

*Chain rule.* The probability that the next bytes are those of the group, in this tokenization, is
the product along its tokens:

    P = p(a_1) r_p,  r_p = prod_{i>1} p(a_i | a_<i)        Q = q(b_1) r_q,  r_q alike

*The exact part* needs outcomes that mean the same on both sides. Where the group is several tokens
on one side, a_1 and b_1 have different bytes although both begin the same text: "the" + "re" is no
evidence against "there". So what these two tokens stand for is divided:

    outcome                      teacher                              student
    the group's text             P                                    Q
    v in M without a_1, b_1      p(v)                                 q(v)
    everything else              p(unmatched without a_1)             q(unmatched without b_1)
                                 + p(b_1) if it is another token      + q(a_1) if it is another
                                 + p(a_1) (1 - r_p)                   + q(b_1) (1 - r_q)

Both columns add up to 1: they are distributions, coarser than p and q. The exact part is their
generalised Jensen-Shannon divergence, beta KL(p||m) + (1-beta) KL(q||m). "Everything else" is the
tail bucket: unmatched tokens are other tokens, but what they say can be said by both, so keeping
them apart would punish all their mass, and leaving them out would not see it. The divergence is at
least that of the two outcomes {the text, not the text} (data-processing inequality); for one
matched token on both sides it is the JSD over M and one bucket, and for equal vocabularies the
plain JSD. GOLD (TRL, 2025) multiplies all of p by r_p instead, which is no distribution. What
remains approximate in both: probabilities are those of one tokenization, not summed over all
tokenizations of a text.

*The rest* is compared without meaning (ULD, Boizard et al. 2024): sum |sort p - sort q| over the
unmatched tokens without a_1 and b_1, whose mass has its own outcome; the shorter list has zeros at
its end. 0 when all tokens are matched.

Every outcome's share of the JSD is at least 0 (log-sum inequality), so the sum loses nothing to
cancellation. All is float32 in logarithms; 1 - r is -expm1(log r). `Split` makes six numbers of a
row of logits, in chunks of positions (`ops.divergence.row_losses`), and `join` adds what comes from
other rows. Memory beyond the chunk: none of the size positions x vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..ops.divergence import log_softmax

# Logarithms below this are probability 0. It keeps 0 log 0 and its gradient at 0.
FLOOR = -1e4
SMALLEST_LOG = 1e-30

Rows = Float[Tensor, " groups"]


@dataclass(frozen=True, eq=False)
class Split:
    """`split` of rows of one side each. beta: of the JSD. has_uld: whether the rest is sorted,
    which is most of the time for large vocabularies. teacher_ids, student_ids: M, one to one;
    teacher_columns, student_columns: the place in M of each id, -1 where it is unmatched.
    """

    teacher_ids: Int[Tensor, " matched"]
    student_ids: Int[Tensor, " matched"]
    teacher_columns: Int[Tensor, " teacher_vocabulary"]
    student_columns: Int[Tensor, " student_vocabulary"]
    beta: float
    has_uld: bool

    @classmethod
    def of(
        cls,
        teacher_ids: Tensor,
        student_ids: Tensor,
        teacher_size: int,
        student_size: int,
        beta: float,
        has_uld: bool = True,
    ) -> Split:
        """From the matched ids and the sizes of both vocabularies."""
        columns = [
            torch.full((size,), -1, device=ids.device).index_copy(
                0, ids, torch.arange(len(ids), device=ids.device)
            )
            for ids, size in ((teacher_ids, teacher_size), (student_ids, student_size))
        ]
        return cls(teacher_ids, student_ids, columns[0], columns[1], beta, has_uld)

    def __call__(
        self,
        student: Float[Tensor, "rows student_vocabulary"],
        teacher: Float[Tensor, "rows teacher_vocabulary"],
        student_first: Int[Tensor, " rows"],
        teacher_first: Int[Tensor, " rows"],
    ) -> Float[Tensor, "rows 6"]:
        """Of logits before a group, and the first token of each side: (the JSD's part of M without
        the first tokens, ULD, log q(b_1), log p(a_1), log q(else), log p(else)), where "else" lacks
        what the first tokens leave over.
        """
        log_q, log_p = log_softmax(student), log_softmax(teacher)
        first_q = log_q.gather(1, student_first[:, None])
        first_p = log_p.gather(1, teacher_first[:, None])
        # Columns of M whose tokens begin the group on one of the sides.
        columns = torch.stack(
            [self.student_columns[student_first], self.teacher_columns[teacher_first]], 1
        )
        is_first = _marks(columns, len(self.student_ids))
        matched_q, matched_p = log_q[:, self.student_ids], log_p[:, self.teacher_ids]
        exact = outcome_jsd(matched_p, matched_q, self.beta).masked_fill(is_first, 0).sum(1)
        rest_q = log_q.scatter(1, student_first[:, None], -math.inf)
        rest_p = log_p.scatter(1, teacher_first[:, None], -math.inf)
        unmatched_q = rest_q[:, self.student_columns < 0]
        unmatched_p = rest_p[:, self.teacher_columns < 0]
        uld = (
            _uld(unmatched_p.exp(), unmatched_q.exp()) if self.has_uld else torch.zeros_like(exact)
        )
        other_q = _counterpart(rest_q, columns[:, 1], self.student_ids)
        other_p = _counterpart(rest_p, columns[:, 0], self.teacher_ids)
        return torch.stack(
            [
                exact,
                uld,
                first_q[:, 0],
                first_p[:, 0],
                _log_add(unmatched_q.logsumexp(1), other_q),
                _log_add(unmatched_p.logsumexp(1), other_p),
            ],
            1,
        )


def join(
    parts: Float[Tensor, "groups 6"], log_r_q: Rows, log_r_p: Rows, beta: float
) -> tuple[Rows, Rows, Rows]:
    """(the exact part, ULD, log Q) of each group.

    parts: of `Split`. log_r_q, log_r_p: the sum of the log-probabilities of the tokens after the
    first; exactly 0 where there is only one.
    """
    exact, uld, first_q, first_p, else_q, else_p = parts.unbind(1)
    log_text_q, log_text_p = first_q + log_r_q, first_p + log_r_p
    log_else_q = _log_add(else_q, first_q + _log_complement(log_r_q))
    log_else_p = _log_add(else_p, first_p + _log_complement(log_r_p))
    exact = exact + outcome_jsd(log_text_p, log_text_q, beta)
    exact = exact + outcome_jsd(log_else_p, log_else_q, beta)
    return exact, uld, log_text_q


def outcome_jsd(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """What an outcome of probabilities p and q adds to the JSD: beta p log(p/m) + (1-beta) q
    log(q/m); at least 0.
    """
    log_p, log_q = log_p.clamp_min(FLOOR), log_q.clamp_min(FLOOR)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * log_p.exp() * (log_p - log_m) + (1 - beta) * log_q.exp() * (log_q - log_m)


def _uld(p: Float[Tensor, "rows teacher"], q: Float[Tensor, "rows student"]) -> Rows:
    """sum |sort p - sort q|, with zeros for the missing ones."""
    width = min(p.shape[1], q.shape[1])
    p, q = (x.sort(1, descending=True).values for x in (p, q))
    difference = (p[:, :width] - q[:, :width]).abs().sum(1)
    return difference + p[:, width:].sum(1) + q[:, width:].sum(1)


def _marks(columns: Int[Tensor, "rows 2"], width: int) -> Bool[Tensor, "rows width"]:
    """True at the columns; -1 marks none."""
    marks = torch.zeros(len(columns), width + 1, dtype=torch.bool, device=columns.device)
    return marks.scatter_(1, columns % (width + 1), True)[:, :width]


def _counterpart(log_x: Tensor, columns: Int[Tensor, " rows"], ids: Tensor) -> Rows:
    """The log-probability of the token that matches the other side's first one; -inf when there is
    none, or when it is the own first token, whose entry the caller has removed.
    """
    if not len(ids):
        return log_x.new_full((len(log_x),), -math.inf)
    log_counterpart = log_x.gather(1, ids[columns.clamp_min(0)][:, None])[:, 0]
    return log_counterpart.masked_fill(columns < 0, -math.inf)


def _log_add(a: Rows, b: Rows) -> Rows:
    """log(e^a + e^b), which may both be 0."""
    return torch.logaddexp(a.clamp_min(FLOOR), b.clamp_min(FLOOR))


def _log_complement(log_r: Rows) -> Rows:
    """log(1 - r); FLOOR where r is 1."""
    log_complement = (-torch.expm1(log_r.clamp_max(-SMALLEST_LOG))).log()
    return log_complement.masked_fill(log_r > -SMALLEST_LOG, FLOOR)
