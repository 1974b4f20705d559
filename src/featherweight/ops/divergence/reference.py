"""The definitions: how far the student's distribution q over a vocabulary is from the teacher's p.

Every function takes the student's logits first and returns one number in nats for each row:

    cross_entropy         -log q(target)
    forward_kl            KL(p || q)                                     the mean-seeking one
    reverse_kl            KL(q || p)                                     the mode-seeking one
    skew_kl               KL(p || alpha p + (1 - alpha) q)               DistiLLM, Ko et al. 2024
    skew_reverse_kl       KL(q || (1 - alpha) p + alpha q)               the same
    jensen_shannon        beta KL(p || m) + (1 - beta) KL(q || m),  m = beta p + (1 - beta) q
                          GKD, Agarwal et al. 2024
    total_variation       1/2 sum |p - q|;  1 - it is the acceptance rate of speculative decoding
    top_k_kl              from the k largest p only, see there

The limits of `jensen_shannon` have names of their own: its value goes to 0 for beta -> 0 and
beta -> 1, but divided by beta it goes to `forward_kl`, and divided by 1 - beta to `reverse_kl`.
So beta = 0 and 1 are refused instead of meaning something else than the formula.

Logits of any dtype are computed in float32 (float64 stays). Logits must be finite. `temperature`
divides the logits of both sides; the factor temperature^2 that keeps gradients comparable belongs
to the loss.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...base.errors import UsageError

TAIL_RULES = ("tail", "zero", "renormalise")

Logits = Float[Tensor, "rows vocabulary"]
Rows = Float[Tensor, " rows"]


def cross_entropy(student: Logits, targets: Int[Tensor, " rows"]) -> Rows:
    """-log q(target), in nats, for the ids `targets`."""
    logits = precise(student)
    return logits.logsumexp(-1) - logits.gather(-1, targets[:, None])[:, 0]


def forward_kl(student: Logits, teacher: Logits, temperature: float = 1.0) -> Rows:
    """KL(p || q): what the student's code costs on the teacher's tokens."""
    log_q, log_p = log_softmax(student, temperature), log_softmax(teacher, temperature)
    return kl(log_p, log_q)


def reverse_kl(student: Logits, teacher: Logits, temperature: float = 1.0) -> Rows:
    """KL(q || p): punishes the student's tokens that the teacher would not say."""
    log_q, log_p = log_softmax(student, temperature), log_softmax(teacher, temperature)
    return kl(log_q, log_p)


def skew_kl(student: Logits, teacher: Logits, alpha: float = 0.1, temperature: float = 1.0) -> Rows:
    """KL(p || alpha p + (1 - alpha) q). Raises UsageError unless 0 < alpha < 1."""
    check_share("alpha", alpha, "forward_kl")
    log_q, log_p = log_softmax(student, temperature), log_softmax(teacher, temperature)
    return kl(log_p, _log_mixture(log_p, log_q, alpha))


def skew_reverse_kl(
    student: Logits, teacher: Logits, alpha: float = 0.1, temperature: float = 1.0
) -> Rows:
    """KL(q || (1 - alpha) p + alpha q). Raises UsageError unless 0 < alpha < 1."""
    check_share("alpha", alpha, "reverse_kl")
    log_q, log_p = log_softmax(student, temperature), log_softmax(teacher, temperature)
    return kl(log_q, _log_mixture(log_q, log_p, alpha))


def jensen_shannon(
    student: Logits, teacher: Logits, beta: float = 0.5, temperature: float = 1.0
) -> Rows:
    """The generalised Jensen-Shannon divergence. Raises UsageError unless 0 < beta < 1."""
    check_share("beta", beta, "forward_kl", "reverse_kl")
    log_q, log_p = log_softmax(student, temperature), log_softmax(teacher, temperature)
    log_m = _log_mixture(log_p, log_q, beta)
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)


def total_variation(student: Logits, teacher: Logits, temperature: float = 1.0) -> Rows:
    """1/2 sum |p - q|, between 0 and 1."""
    q, p = log_softmax(student, temperature).exp(), log_softmax(teacher, temperature).exp()
    return (p - q).abs().sum(-1) / 2


def top_k_kl(
    student: Logits,
    ids: Int[Tensor, "rows k"],
    log_p: Float[Tensor, "rows k"],
    log_tail: Rows,
    tail_rule: str = "tail",
    temperature: float = 1.0,
) -> Rows:
    """KL(p || q) from k tokens of p and the mass of the others.

    With K the k tokens, S = sum_K p, and R = sum_K q of the full softmax of the student:

        tail          sum_K p log(p/q) + (1-S) log((1-S)/(1-R))    exact on K; the default
        zero          sum_K p log(p/q)                             q becomes p/S: over-confident
        renormalise   sum_K p/S log((p/S)/(q/R))                   leaves R free

    ids: distinct tokens of a row. log_p: their log-probabilities at `temperature`, from the full
    softmax of the teacher. log_tail: log(1-S), -inf when K holds everything. The log-frequencies of
    N sampled tokens are the same with tail_rule "zero", because their S is 1; -inf marks unused
    places. log(1-R) is a logsumexp over the complement of K, which is finite also where R rounds
    to 1.
    """
    if tail_rule not in TAIL_RULES:
        raise UsageError(f"tail_rule={tail_rule!r} is not one of {', '.join(TAIL_RULES)}")
    logits = precise(student) / temperature
    total = logits.logsumexp(-1)
    log_p = log_p.to(logits.dtype)
    log_q = logits.gather(-1, ids) - total[:, None]
    if tail_rule == "renormalise":
        log_p = log_p - log_p.logsumexp(-1, keepdim=True)
        log_q = log_q - log_q.logsumexp(-1, keepdim=True)
    divergence = _terms(log_p, log_q).sum(-1)
    if tail_rule != "tail" or ids.shape[-1] == logits.shape[-1]:
        return divergence
    log_remainder = logits.scatter(-1, ids, -math.inf).logsumexp(-1) - total
    return divergence + _terms(log_tail.to(logits.dtype), log_remainder)


def log_softmax(
    logits: Float[Tensor, "*rows vocabulary"], temperature: float = 1.0
) -> Float[Tensor, "*rows vocabulary"]:
    """log softmax(logits / temperature) in float32; float64 stays."""
    logits = precise(logits)
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, -1)


def precise(x: Tensor) -> Tensor:
    """x in float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def kl(log_p: Logits, log_q: Logits) -> Rows:
    """KL(p || q) of each row of log-probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """p log(p / q), with 0 where p is 0."""
    # A masked log_p keeps the gradient finite too, which `where` over the product would not.
    is_zero = log_p == -math.inf
    return (log_p.exp() * (log_p.masked_fill(is_zero, 0) - log_q)).masked_fill(is_zero, 0)


def _log_mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """log(share a + (1 - share) b)."""
    return torch.logaddexp(log_a + math.log(share), log_b + math.log1p(-share))


def check_share(name: str, share: float, at_zero: str, at_one: str = "nothing, it is 0") -> float:
    """`share`; raises UsageError, naming what to use at its limits, unless 0 < share < 1."""
    if not 0 < share < 1:
        raise UsageError(
            f"{name}={share} must lie between 0 and 1; at 0 use {at_zero}, at 1 {at_one}"
        )
    return share
