"""The parts of a model that is split over several GGUF files, named as llama.cpp names them:
`model-00001-of-00003.gguf` and so on. The first part holds the metadata.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...base.errors import BadInput

PART_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def part_paths(path: Path) -> list[Path]:
    """The files of the model whose first or only file is `path`.

    Raises BadInput when `path` is another part than the first, or parts are missing.
    """
    match = PART_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) < 2:
        return [path]
    stem, count = match["stem"], int(match["count"])
    paths = [path.with_name(f"{stem}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]
    if path != paths[0]:
        raise BadInput(f"{path} is one part of a split model; give the first one, {paths[0]}")
    for part in paths:
        if not part.is_file():
            raise BadInput(f"{path} is split over {count} files, and {part.name} is missing")
    return paths
