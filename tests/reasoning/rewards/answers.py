"""Marks answers for the tests of the reward rules, written by hand or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from featherweight.reasoning.marks import Marks
from featherweight.reasoning.rewards import BY_NAME, Rule, Sizes, State

NUM_PROMPTS = 3
LIMITS = (8, 256, 20480)


def answers(
    lengths: Sequence[float],
    correct: Sequence[float],
    group: Sequence[int] | None = None,
    limit: int = 10000,
    **fields: Any,
) -> Marks:
    """Answers of one prompt, or of `group`; lists of `fields` become tensors."""
    dtypes = {"is_cut": torch.bool, "repeats": torch.bool, "bucket": torch.int64}
    return Marks(
        correct=torch.tensor(correct, dtype=torch.float64),
        lengths=torch.tensor(lengths, dtype=torch.float64),
        group=torch.tensor([0] * len(lengths) if group is None else group),
        limit=limit,
        **{
            name: torch.tensor(field, dtype=dtypes.get(name, torch.float64))
            if isinstance(field, list)
            else field
            for name, field in fields.items()
        },
    )


@st.composite
def batches(
    draw: st.DrawFn, ungraded: bool = False, num_prompts: int = NUM_PROMPTS, step: int | None = None
) -> Marks:
    """Answers to some prompts, every field filled; some ungraded if `ungraded`."""
    limit = draw(st.sampled_from(LIMITS))
    kinds = [1.0, 1.0, 0.0, 0.0, -1.0] + [float("nan")] * ungraded  # -1 is cut at the limit
    verdicts = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=10))
    # Few lengths, so that equal ones are frequent.
    scale = st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 1.0])
    lengths = [limit if v == -1 else max(1, round(draw(scale) * limit)) for v in verdicts]
    count = len(verdicts)
    # Often one prompt, so that groups are large enough.
    last = draw(st.sampled_from([0, num_prompts - 1]))
    group = draw(st.lists(st.integers(0, last), min_size=count, max_size=count))
    references = [(draw(scale) * limit + 1, draw(scale)) for _ in range(num_prompts)]
    budgets = [round(draw(scale) * limit) for _ in range(num_prompts)]
    return answers(
        lengths,
        [max(v, 0.0) if v == v else v for v in verdicts],
        group,
        limit,
        is_cut=[v == -1 for v in verdicts],
        repeats=draw(st.lists(st.booleans(), min_size=count, max_size=count)),
        budget=[float(budgets[g]) for g in group],
        reference_length=[references[g][0] for g in group],
        reference_accuracy=[references[g][1] for g in group],
        step=draw(st.integers(0, 600)) if step is None else step,
    )


def state_after(rule: Rule, history: Sequence[Marks], num_prompts: int = NUM_PROMPTS) -> State:
    """The state of `rule` after the steps of `history`."""
    state: State = rule.start(Sizes(prompts=num_prompts))
    for graded in history:
        state = rule.update(state, graded)
    return state


def every_rule() -> list[Rule]:
    """One of each rule with the published constants, and one variant."""
    return [*(rule() for rule in BY_NAME.values()), BY_NAME["prime_rl"](correct_only=False)]
