"""`ShortARCMixin`: decoupled advantages inside `trl.GRPOTrainer`. It replaces the advantages that
the trainer computed, and nothing else.

It overrides two private methods and calls a third. TRL has removed features of its own when such
overrides no longer fitted, so their parameters are compared when the trainer is made.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from ....base.errors import Unsupported, UsageError
from ...advantages import Control
from ...control_state import ControlState
from ...rewards import Sizes
from ..answers import AnswerFormat
from .checkpoints import checkpoint_callback
from .rows import Columns, gather_rows, number_groups, read_rows

SIGNATURES = {
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_log_metric": ("self", "name", "value"),
}
NOT_EXAMPLE = ("prompt", "completion", "completion_ids")


class ShortARCMixin:
    """To be put before `trl.GRPOTrainer` among the bases of a class.

    Its one reward function gives correctness: from 0 to 1, None for an answer that cannot be
    graded. control: gives the advantages, `ShortARC()` or any other. Advantages are those of all
    processes together, and the control learns once a generation. In evaluation, rewards are plain
    correctness and the control learns nothing. An answer that was cut counts as wrong in both.

    The advantages in TRL's table of completions are still its own. Raises Unsupported when TRL's
    methods have other parameters than those that this was written for, UsageError for settings
    that contradict it.
    """

    def __init__(
        self,
        *args: Any,
        control: Control,
        answer_format: AnswerFormat,
        columns: Columns | None = None,
        sizes: Sizes | None = None,
        **kwargs: Any,
    ) -> None:
        check_signatures(type(self))
        super().__init__(*args, **kwargs)
        self.answer_format = answer_format
        self.columns = columns or Columns()
        self.control_state = ControlState(control, sizes or Sizes())
        self._new_advantages: Tensor | None = None
        check_settings(self)
        trainer: Any = self
        trainer.add_callback(checkpoint_callback(self.control_state))

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Any:
        """TRL's gathered rewards [rows of all processes, 1], 0 for answers that were cut."""
        trainer: Any = self
        parent: Any = super()
        correctness = parent._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        start = trainer.accelerator.process_index * len(prompts)
        own_correctness = correctness[start : start + len(prompts), 0].tolist()
        correct = [None if number != number else number for number in own_correctness]
        names = [name for name in inputs[0] if name not in NOT_EXAMPLE]
        columns = {name: [example[name] for example in inputs] for name in names}
        rows = read_rows(
            prompts, completion_ids_list, correct, columns, self.columns, self.answer_format
        )
        all_rows, own_rows = gather_rows(rows, "auto")
        is_training = trainer.model.training
        if is_training:
            all_rows = number_groups(all_rows, trainer.num_generations)
        else:
            all_rows["group"] = [0] * len(all_rows["prompt"])
        marks = self.answer_format.marks(all_rows, int(trainer.state.global_step))
        if len(marks) != len(correctness):
            raise Unsupported(f"TRL gathered {len(correctness)} rewards for {len(marks)} answers")
        if is_training:
            advantages = self.control_state.take(marks)
            self._new_advantages = advantages.numbers[own_rows]
            for name, figure in advantages.facts.items():
                trainer._log_metric(f"control/{name}", figure)
        return marks.correct.to(correctness)[:, None]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """TRL's output with our advantages of this process."""
        parent: Any = super()
        output = parent._generate_and_score_completions(inputs)
        if self._new_advantages is not None:
            old, new = output["advantages"], self._new_advantages
            if old.shape != new.shape:
                raise Unsupported(
                    f"TRL's advantages have shape {tuple(old.shape)}, not {tuple(new.shape)}; "
                    'take LengthReward with ShortARC(form="scalar") instead'
                )
            output["advantages"] = new.to(old)
            self._new_advantages = None
        return output


def check_signatures(trainer: type) -> None:
    """Raise Unsupported unless TRL's methods have the parameters that the mixin relies on."""
    bases = trainer.__mro__[trainer.__mro__.index(ShortARCMixin) + 1 :]
    for name, parameters in SIGNATURES.items():
        method = next((vars(base)[name] for base in bases if name in vars(base)), None)
        present = tuple(inspect.signature(method).parameters) if method else None
        if present != parameters:
            parameter_list = f"({', '.join(present)})" if present else "not there"
            raise Unsupported(
                f"{name} of this TRL is {parameter_list}, and ShortARCTrainer was written for "
                f"({', '.join(parameters)}); install TRL 1.16, or take LengthReward with "
                'ShortARC(form="scalar") and scale_rewards="none", which needs no private method'
            )


def check_settings(trainer: Any) -> None:
    """Raise UsageError for settings of TRL that contradict the advantages of a control."""
    if trainer.scale_rewards != "none":
        raise UsageError(
            f'scale_rewards={trainer.scale_rewards!r}: set it to "none" in GRPOConfig, since the '
            "control gives the advantages"
        )
    if len(trainer.reward_funcs) != 1:
        raise UsageError(
            f"{len(trainer.reward_funcs)} reward functions: ShortARCTrainer takes one, which gives "
            "correctness; judge a format inside it"
        )
    if trainer.answer_format.limit != trainer.max_completion_length:
        raise UsageError(
            f"limit={trainer.answer_format.limit}, but max_completion_length="
            f"{trainer.max_completion_length}; set both to the same length"
        )
    if absent_ids := set(trainer.eos_token_ids) - set(trainer.answer_format.end_ids):
        raise UsageError(
            f"answers may end with the tokens {sorted(absent_ids)}, which are not in end_ids="
            f"{trainer.answer_format.end_ids}; they would count as cut"
        )
    if not torch.is_tensor(trainer.reward_weights) or float(trainer.reward_weights[0]) != 1:
        raise UsageError("reward_weights: the one reward function, correctness, has the weight 1")
