"""Training: one loop, its losses, schedules and optimizers. `steps` is a generator of `Step`; it
survives a kill, and knows neither tokens nor transformers. Importing this package imports torch.
"""

from __future__ import annotations

from .averages import EMA
from .batches import Batches, ShuffledBatches
from .checkpoint import average_checkpoints, checkpoint_files
from .groups import parameter_groups, split, trainable
from .listeners import TensorBoard, history
from .loop import steps
from .loss import Loss, LossFunction
from .muon import Muon
from .ranks import open_run, process_group, shard
from .schedules import WSD, Constant, Cosine, Schedule, TwoStage
from .step import Step

__all__ = [
    "EMA",
    "WSD",
    "Batches",
    "Constant",
    "Cosine",
    "Loss",
    "LossFunction",
    "Muon",
    "Schedule",
    "ShuffledBatches",
    "Step",
    "TensorBoard",
    "TwoStage",
    "average_checkpoints",
    "checkpoint_files",
    "history",
    "open_run",
    "parameter_groups",
    "process_group",
    "shard",
    "split",
    "steps",
    "trainable",
]
