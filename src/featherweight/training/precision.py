"""Whether products in bfloat16 are faster than in float32 on a device.

Parameters, gradients and optimizer state stay float32; only products run in bfloat16 (autocast).
"""

from __future__ import annotations

import torch


def bf16_pays(device: torch.device) -> bool:
    """True on GPUs with bfloat16, and on CPUs with tiles for it (AMX). Other CPUs emulate it, or
    convert for every product, which a step of training does not win back.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()
