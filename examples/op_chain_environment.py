"""An environment of verifiers 0.1 with chains of operations: `vf-install`, `vf-eval` and prime-rl
look for `load_environment`. FW_MODEL is the folder of the tokenizer that counts the thoughts.
"""

from __future__ import annotations

import os
from typing import Any

from featherweight.data.tasks.op_chain import END, OpChain
from featherweight.reasoning.adapters.verifiers import make_environment


def load_environment(count: int = 1000, longest: int = 10, **settings: Any) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(os.environ["FW_MODEL"])
    task = OpChain(count=count, longest=longest)
    return make_environment(task, tokenizer.encode, think_end=END, **settings)
