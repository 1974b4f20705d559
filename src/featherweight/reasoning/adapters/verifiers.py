"""verifiers: an environment for prime-rl and others, made of one of our tasks.

    # my_environment.py
    def load_environment(**kwargs):
        return make_environment(GSM8K(...), encode=tokenizer.encode, split="train")

The rubric pays for correctness and format. The tokens of the thought are a figure of weight 0: a
pressure on length belongs into the trainer, which sees the groups (prime-rl: `length_penalty`).
This is the interface of verifiers 0.1, with `SingleTurnEnv` and `Rubric`; verifiers 0.2 and later
have another one, and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...base.errors import Unsupported, UsageError
from ...data.tasks import Task
from .answers import plain_text

THINK, END_THINK = "<think>", "</think>"


class TaskRubric:
    """The figures of an answer, each a method with the arguments of a reward function of verifiers.

    task: grades the text after the thought. encode: text to ids. think_end: the text that ends a
    thought.
    """

    def __init__(
        self, task: Task, encode: Callable[[str], Sequence[int]], think_end: str = END_THINK
    ) -> None:
        if not think_end:
            raise UsageError("think_end is empty; name the text that ends a thought")
        self.task, self.encode, self.think_end = task, encode, think_end

    def correctness(self, completion: Any, info: Any, **kwargs: Any) -> float:
        """The task's grade of the whole answer; 0 for one that cannot be graded, since verifiers
        has no way to leave one out (`is_ungraded` counts them).
        """
        return self.task.grade(info, plain_text(completion)) or 0.0

    def is_ungraded(self, completion: Any, info: Any, **kwargs: Any) -> float:
        """1 for an answer that the task cannot grade."""
        return float(self.task.grade(info, plain_text(completion)) is None)

    def has_format(self, completion: Any, **kwargs: Any) -> float:
        """1 for an answer with one end of thought and something after it."""
        text = plain_text(completion)
        return float(
            text.count(self.think_end) == 1 and bool(text.split(self.think_end)[1].strip())
        )

    def think_tokens(self, completion: Any, **kwargs: Any) -> float:
        """Tokens up to the end of the thought; of the whole text when it never ends."""
        thought, marker, _ = plain_text(completion).partition(self.think_end)
        return float(len(self.encode(thought + marker)))


def make_environment(
    task: Task,
    encode: Callable[[str], Sequence[int]],
    *,
    split: str = "train",
    format_weight: float = 0.1,
    system_prompt: str | None = None,
    think_end: str = END_THINK,
) -> Any:
    """A `verifiers.SingleTurnEnv` with the examples of `task`: prompt, answer (the gold text), info
    (the example).

    format_weight: of `has_format` beside correctness, whose weight is 1 - format_weight. Raises
    UsageError without verifiers, Unsupported for a release with another interface.
    """
    if not 0 <= format_weight < 1:
        raise UsageError(f"format_weight={format_weight} is from 0 to below 1")
    try:
        import verifiers
        from datasets import Dataset
    except ImportError as error:
        raise UsageError(
            'verifiers cannot be imported; run: pip install "verifiers>=0.1.5,<0.2"'
        ) from error
    if not (hasattr(verifiers, "SingleTurnEnv") and hasattr(verifiers, "Rubric")):
        raise Unsupported(
            f"verifiers {getattr(verifiers, '__version__', '')} has no SingleTurnEnv; run: "
            'pip install "verifiers>=0.1.5,<0.2"'
        )
    rubric = TaskRubric(task, encode, think_end)
    return verifiers.SingleTurnEnv(
        dataset=Dataset.from_list(environment_rows(task, split)),
        system_prompt=system_prompt,
        rubric=verifiers.Rubric(
            funcs=[
                rubric.correctness,
                rubric.has_format,
                rubric.think_tokens,
                rubric.is_ungraded,
            ],
            weights=[1 - format_weight, format_weight, 0.0, 0.0],
        ),
    )


def environment_rows(task: Task, split: str) -> list[dict[str, Any]]:
    """prompt (messages), answer and info of each example of `task`."""
    return [
        {
            "prompt": [{"role": "user", "content": task.prompt(example)}],
            "answer": (task.golds(example) or ("",))[0],
            "info": dict(example),
        }
        for example in task.examples(split)
    ]
