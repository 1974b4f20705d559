"""TRL: `LengthReward` for its `reward_funcs`, and `ShortARCTrainer` for decoupled advantages.

reward = LengthReward(
    ShortARC(form="scalar"), grade, AnswerFormat(think_end, end_ids, limit), num_generations=8
)
trainer = GRPOTrainer(model, reward_funcs=[reward], args=GRPOConfig(scale_rewards="none", ...), ...)
trainer.add_callback(checkpoint_callback(reward))

TRL is imported when `ShortARCTrainer` or `checkpoint_callback` is used, and only then. Written for
TRL 1.16; the trainer compares the methods that it overrides before anything starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .reward import LengthReward

if TYPE_CHECKING:
    from .checkpoints import checkpoint_callback as checkpoint_callback
    from .trainer import ShortARCTrainer as ShortARCTrainer

__all__ = ["LengthReward", "ShortARCTrainer", "checkpoint_callback"]


def __getattr__(name: str) -> Any:
    if name == "ShortARCTrainer":
        from .trainer import ShortARCTrainer

        return ShortARCTrainer
    if name == "checkpoint_callback":
        from .checkpoints import checkpoint_callback

        return checkpoint_callback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
