"""Whether products in bfloat16 are faster than in float32 on a device.

Parameters, gradients and optimizer state stay float32; only products run in bfloat16 (autocast).
"""

from __future__ import annotations

import torch


def bf16_pays(device: torch.device) -> bool:
    """True on GPUs with bfloat16, and on CPUs with instructions for its products (AMX, or AVX-512
    BF16, where a step of a 135M model took a quarter of the time). Other CPUs emulate it.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has_products = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return device.type == "cpu" and has_products
