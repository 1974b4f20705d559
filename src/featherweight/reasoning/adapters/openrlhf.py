"""OpenRLHF: a `reward_func` for `--reward.remote_url my_rewards.py`.

    # my_rewards.py
    reward_func = RewardFunction(DAPOOverlong(), grade, tokenizer, answer_format)

A rule that compares the answers to one prompt needs all of them in one call. OpenRLHF 0.11 calls
`reward_func` with one answer at a time, so there only the rules in `SINGLE_RULES`, which look at
each answer alone, can work. The others need `group`, and calls with whole groups: from an agent of
your own, or a release that passes batches. OpenRLHF logs an error of a reward function as
information and goes on; look there when rewards are missing.

Texts arrive, no ids: the tokens of an answer are those that `tokenizer` makes of its text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...base.errors import UsageError
from ..rewards import Accuracy, Cosine, DAPOOverlong, Laser, Linear, Rule, Sizes
from ..short_arc import ShortARC
from .answers import AnswerFormat, Grade, grades
from .scalar import ScalarReward

SINGLE_RULES: tuple[type[Rule], ...] = (Accuracy, Linear, Cosine, DAPOOverlong, Laser)


class RewardFunction:
    """`reward_func(queries, prompts, labels)` -> {"rewards", "scores", "extra_logs"}, tensors with
    an entry for each answer.

    rewards: of the rule; scores: correctness; both 0 for an answer without a grade, since OpenRLHF
    has no way to leave one out, and `ungraded` in extra_logs says how many. grade: called with
    {"prompt", "label"} and the text of the answer. group: answers to each prompt, or 1 for a rule
    of `SINGLE_RULES`. Groups are told apart by the text of the prompt, in any order.
    """

    def __init__(
        self,
        rule: Rule | ShortARC,
        grade: Grade,
        tokenizer: Any,
        answer_format: AnswerFormat,
        group: int = 1,
        sizes: Sizes | None = None,
    ) -> None:
        if group < 2 and not isinstance(rule, SINGLE_RULES):
            raise UsageError(
                f"{type(rule).__name__} compares the answers to one prompt, and group={group} "
                "shows it one; say how many answers to a prompt arrive in a call (OpenRLHF 0.11: "
                f"always 1), or take one of {', '.join(kind.__name__ for kind in SINGLE_RULES)}"
            )
        self.scalar = ScalarReward(rule, sizes or Sizes())
        self.grade, self.tokenizer, self.answer_format = grade, tokenizer, answer_format
        self.group = group
        self.__name__ = "reward_func"

    def __call__(
        self,
        queries: Sequence[str],
        prompts: Sequence[str],
        labels: Sequence[Any],
        **kwargs: Any,
    ) -> dict[str, Any]:
        """queries: prompt and answer as one text, with special tokens. Raises UsageError for a
        group that is not whole, and for a query that does not start with its prompt.
        """
        texts = [cut_prompt(query, prompt) for query, prompt in zip(queries, prompts, strict=True)]
        groups = self._groups(prompts)
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        examples: list[Mapping[str, Any]] = [
            {"prompt": prompt, "label": label}
            for prompt, label in zip(prompts, labels, strict=True)
        ]
        answers = [self._decode(answer) for answer in ids]
        rows: dict[str, Sequence[Any]] = {
            "correct": grades(self.grade, examples, answers),
            "group": groups,
            "bucket": [0] * len(texts),
            **self.answer_format.read(ids),
        }
        marks = self.answer_format.marks(rows, self.scalar.step)
        return {
            "rewards": self.scalar.take(marks).nan_to_num().float(),
            "scores": marks.correct.nan_to_num().float(),
            "extra_logs": {
                "accuracy": marks.correct.nan_to_num().float(),
                "length": marks.lengths.float(),
                "cut": marks.is_cut.float(),
                "ungraded": (~marks.has_mark).float(),
            },
        }

    def state_dict(self) -> dict[str, Tensor]:
        """What the rule learned, and the number of steps."""
        return self.scalar.state_dict()

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        self.scalar.load_state_dict(tensors)

    def _groups(self, prompts: Sequence[str]) -> list[int]:
        if self.group == 1:
            return list(range(len(prompts)))
        for prompt, count in Counter(prompts).items():
            if count != self.group:
                raise UsageError(
                    f"a call has {count} answers to {prompt[:40]!r}, not group={self.group}; a "
                    "part of a group has another mean, so its rewards would be wrong"
                )
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        return [numbers[prompt] for prompt in prompts]

    def _decode(self, ids: Sequence[int]) -> str:
        """The text of an answer without its end token."""
        body = ids[:-1] if ids and ids[-1] in self.answer_format.end_ids else ids
        text: str = self.tokenizer.decode(body)
        return text


def cut_prompt(query: str, prompt: str) -> str:
    """The answer in `query`. Raises UsageError when `query` does not start with the prompt."""
    if not query.startswith(prompt):
        raise UsageError(
            f"a query starts with {query[:40]!r}, not with its prompt {prompt[:40]!r}; the answer "
            "cannot be told from the prompt (was the prompt truncated?)"
        )
    return query[len(prompt) :]
