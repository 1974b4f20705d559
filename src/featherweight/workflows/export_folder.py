"""The shell's `export`: writes a packed folder in the file format of another program, reads the
result again and compares it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..base.errors import BadInput, UsageError
from ..base.events import Listener, silent
from ..interchange import exports
from ..interchange.exports.base import ExportResult, export
from ..interchange.packed.folder import is_packed
from ..interchange.packed.model import PackedModel


def export_folder(
    packed: Path | str,
    to: str,
    out: Path | str,
    *,
    overwrite: bool = False,
    odd_bits: bool = False,
    listener: Listener = silent,
) -> ExportResult:
    """Write the packed folder `packed` to `out` in the format of the target `to`.

    `exports.summaries()` lists the targets: "gguf" writes a file; "compressed-tensors" and "hf" (an
    ordinary transformers folder with decoded weights) write folders. overwrite: replace an earlier
    export at `out`. odd_bits: allow 3, 5, 6 and 7 bits in compressed-tensors, which its older
    releases read wrongly. listener: receives an event for each tensor. Raises BadInput for a folder
    that featherweight did not pack, UsageError when the target cannot store the codes exactly,
    ExportFailed (exit code 5) when the files, read again, differ from the model.
    """
    packed, out = Path(packed), Path(out)
    target = exports.find(to)
    options = {"odd_bits": True} if odd_bits else {}
    if unknown_options := set(options) - {field.name for field in dataclasses.fields(target)}:
        flag = f"--{unknown_options.pop().replace('_', '-')}"
        raise UsageError(f"{flag} is about compressed-tensors; --to {to} needs no such permission")
    if not is_packed(packed):
        raise BadInput(
            f"{packed} is not a folder that `featherweight quantize` made; exports write those"
        )
    if out.resolve() == packed.resolve():
        raise UsageError(f"{out} is the packed folder itself; choose another --out")
    return export(PackedModel(packed), target(**options), out, overwrite, listener)
