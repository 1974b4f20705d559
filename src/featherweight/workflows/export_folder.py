"""The shell's `export`: a packed folder written for other programs, code for code, read again and
compared.
"""

from __future__ import annotations

from pathlib import Path

from ..base import spec
from ..base.errors import BadInput, UsageError
from ..base.events import Listener, silent
from ..interchange.exports.base import ExportResult, PackedModel
from ..interchange.packed.folder import is_packed

FORMATS = ("gguf", "compressed-tensors", "hf")


def export_folder(
    packed: Path | str,
    to: str,
    out: Path | str,
    *,
    overwrite: bool = False,
    odd_bits: bool = False,
    listener: Listener = silent,
) -> ExportResult:
    """Write the packed folder `packed` for the programs that read `to`: "gguf" (`out` is a file),
    "compressed-tensors" or "hf" (a decoded, ordinary transformers folder; `out` is a folder).

    `odd_bits` allows widths in compressed-tensors that its older releases read wrongly. Raises
    UsageError when the format cannot hold the codes exactly, ExportFailed (exit code 5) when what
    was written, read again, differs.
    """
    packed, out = Path(packed), Path(out)
    if to not in FORMATS:
        raise UsageError(f"unknown export {to!r}; {spec.nearest(to, FORMATS)}")
    if odd_bits and to != "compressed-tensors":
        raise UsageError(
            f"--odd-bits is about compressed-tensors; --to {to} needs no such permission"
        )
    if not is_packed(packed):
        raise BadInput(
            f"{packed} is not a folder that `featherweight quantize` made; exports write those"
        )
    if out.resolve() == packed.resolve():
        raise UsageError(f"{out} is the packed folder itself; name another place")
    model = PackedModel(packed)
    if to == "gguf":
        from ..interchange.exports.gguf import export_gguf

        return export_gguf(model, out, overwrite, listener)
    if to == "hf":
        from ..interchange.exports.hf import export_hf

        return export_hf(model, out, overwrite, listener)
    from ..interchange.exports.compressed_tensors import export_compressed_tensors

    return export_compressed_tensors(model, out, overwrite, odd_bits, listener)
