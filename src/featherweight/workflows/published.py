"""What a user had before: the dtype in which a model was published, and the bytes of its weights.

The source's files can be a conversion of it. A bundled model is converted to float32, so that its
files take twice the bytes of the published bfloat16 weights. Every size that is printed for
comparison starts from here.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from ..interchange import bundled
from ..interchange.source import Source


def published_size(source: Source) -> tuple[str, int]:
    """The dtype in which the original was published, and the bytes of its weights in it.

    The bytes are those of the source's files where they hold that dtype, and otherwise counted from
    the number of parameters, without headers.
    """
    path = Path(source.name).expanduser()
    if path.is_file():
        return "GGUF", path.stat().st_size
    bundled_model = None if path.exists() else bundled.find(source.name)
    config_dtype = source.config.get("dtype") or source.config.get("torch_dtype")
    dtype = bundled_model.published_dtype if bundled_model else config_dtype
    stored_dtype = _main_dtype(source)
    bytes_per_weight = _bytes_per_weight(dtype)
    if bytes_per_weight is None or dtype == stored_dtype:
        return stored_dtype, source.weights.file_bytes
    return str(dtype), source.anatomy.num_parameters * bytes_per_weight


def _main_dtype(source: Source) -> str:
    """The dtype of most weights in the source's files."""
    counts: Counter[str] = Counter()
    for name in source.weights.names():
        dtype = str(source.weights.dtype(name)).removeprefix("torch.")
        counts[dtype] += math.prod(source.weights.shape(name))
    return counts.most_common(1)[0][0]


def _bytes_per_weight(dtype: object) -> int | None:
    """Bytes of a number of this dtype, None when torch has no floating dtype of that name."""
    import torch  # here, so that serving a packed folder does not import it

    torch_dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else None
    if isinstance(torch_dtype, torch.dtype) and torch_dtype.is_floating_point:
        return torch_dtype.itemsize
    return None
