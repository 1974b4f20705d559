"""The advantages of ShortARC in verl, which imports this module in each of its processes.

PYTHONPATH=examples VERL_USE_EXTERNAL_MODULES=shorter_thoughts_verl
python -m verl.trainer.main_ppo algorithm.adv_estimator=short_arc
    actor_rollout_ref.rollout.n=8 data.max_response_length=4096
    reward.custom_reward_function.path=pkg://featherweight.reasoning.adapters.verl
    reward.custom_reward_function.name=compute_score ...
"""

from __future__ import annotations

import sys

from featherweight.reasoning.adapters.verl import ShortARCEstimator
from featherweight.reasoning.short_arc import ShortARC

ESTIMATOR = ShortARCEstimator(ShortARC(floor=64), limit=4096)

if "verl" in sys.modules:
    ESTIMATOR.register()
