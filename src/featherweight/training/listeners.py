"""What follows a run from outside: a listener for TensorBoard, and the measurements of the steps
read from `events.jsonl`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..base.errors import BadInput, UsageError
from ..base.events import Event
from .checkpoint import FOLDER


class TensorBoard:
    """A listener that writes the values of each step for TensorBoard into `folder`.

    Raises UsageError where the package tensorboard is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("TensorBoard is not installed; try pip install tensorboard") from error
        self._writer: Any = SummaryWriter(str(folder))

    def __call__(self, event: Event) -> None:
        """Write one event."""
        for name, value in event.values.items():
            self._writer.add_scalar(name, value, event.done)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


def history(folder: Path, stage: str = FOLDER) -> list[dict[str, Any]]:
    """The values of every step of a run, in order: `step`, `loss`, `lr` and so on.

    folder: of the run (`RunFolder.folder`, or where it was published). stage: as in `steps`. A step
    that was repeated after a kill is there once; numbers that were not finite are None. Raises
    BadInput for a folder without events.
    """
    path = folder / "events.jsonl"
    if not path.exists():
        raise BadInput(f"{path} does not exist: no run of training")
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # a kill truncated this line, and its step was repeated
        if isinstance(entry, dict) and entry.get("stage") == stage:
            rows[entry["done"]] = {"step": entry["done"], **entry["values"]}
    return [rows[step] for step in sorted(rows)]
