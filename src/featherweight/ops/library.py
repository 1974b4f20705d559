"""The native library, if there is one: loaded lazily with ctypes, its absence said once. Imports no
torch.

`FEATHERWEIGHT_NATIVE=0` disables it, `FEATHERWEIGHT_LIBRARY` names another file (for development),
`FEATHERWEIGHT_ISA` is one of scalar, avx2, avx512, and `FEATHERWEIGHT_THREADS` the number of
threads. The library checks every size itself and answers with a status; `check` turns that into an
exception. Tensors handed over as pointers must stay referenced by the caller until the call
returns; ctypes gives up the GIL meanwhile.
"""

from __future__ import annotations

import ctypes
import logging
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import BadInput, UsageError

if TYPE_CHECKING:
    from torch import Tensor

ABI = 4
ISAS = ("scalar", "avx2", "avx512")
_log = logging.getLogger(__name__)

_POINTER, _INT, _LONG, _FLOAT, _TEXT = (
    ctypes.c_void_p,
    ctypes.c_int32,
    ctypes.c_int64,
    ctypes.c_float,
    ctypes.c_char_p,
)
_SIGNATURES = {
    "fw_viterbi_encode": (
        _POINTER,
        _LONG,
        _LONG,
        _POINTER,
        _INT,
        _INT,
        _FLOAT,
        _TEXT,
        _INT,
        _POINTER,
    ),
    "fw_trellis_decode": (_POINTER, _LONG, _LONG, _POINTER, _INT, _INT, _TEXT, _INT, _POINTER),
    "fw_trellis_dense": (
        _POINTER,
        _LONG,
        _LONG,
        _POINTER,
        _INT,
        _INT,
        _POINTER,
        _TEXT,
        _INT,
        _POINTER,
    ),
    "fw_int_dense": (
        *(_POINTER, _LONG, _LONG, _INT, _POINTER, _POINTER, _LONG),
        *(_POINTER, _LONG, _TEXT, _INT, _POINTER),
    ),
    "fw_hadamard": (_POINTER, _LONG, _LONG, _INT, _LONG, _POINTER, _TEXT, _INT),
    "fw_model_new": (_POINTER, _TEXT, _INT, _POINTER),
    "fw_forward": (_POINTER, _POINTER, _LONG),
    "fw_product": (_POINTER, _POINTER, _LONG, _INT, _TEXT, _POINTER),
}


def library() -> ctypes.CDLL | None:
    """The native library, or None where the references must do; the reason is logged once a
    process.
    """
    return None if os.environ.get("FEATHERWEIGHT_NATIVE") == "0" else _load()


def path() -> Path:
    """Where the library is looked for; it need not be there."""
    override = os.environ.get("FEATHERWEIGHT_LIBRARY")
    return (
        Path(override)
        if override
        else Path(__file__).parent.parent / "_native" / "libfeatherweight.so"
    )


@cache
def _load() -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL(str(path()))
        number = found.fw_abi()
        if number != ABI:
            raise OSError(f"{path()} speaks ABI {number}, this package {ABI}")
    except (OSError, AttributeError) as error:
        _log.warning("native library not available (%s); using the slower PyTorch reference", error)
        return None
    for name, arguments in _SIGNATURES.items():
        function = getattr(found, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int32
    found.fw_isa.restype = found.fw_isa_message.restype = ctypes.c_char_p
    found.fw_model_free.argtypes = (_POINTER,)
    found.fw_model_free.restype = None
    found.fw_bandwidth.argtypes = (_POINTER, _LONG, _INT, _INT)
    found.fw_time_product.argtypes = (_POINTER, _LONG, _TEXT, _INT, _INT)
    found.fw_bandwidth.restype = found.fw_time_product.restype = ctypes.c_double
    found.fw_isa_available.argtypes = (ctypes.c_char_p,)
    message = found.fw_isa_message().decode()
    if message:
        _log.warning("%s", message)
    return found


def isa() -> str:
    """The instruction set in use: scalar, avx2, avx512, or reference without a library."""
    found = library()
    return found.fw_isa().decode() if found is not None else "reference"


def available() -> tuple[str, ...]:
    """Every instruction set that runs on this machine, slowest first; empty without a library."""
    found = library()
    return (
        ()
        if found is None
        else tuple(name for name in ISAS if found.fw_isa_available(name.encode()))
    )


def threads() -> int:
    """Threads that a call uses by default; 1 without a library."""
    found = library()
    return int(found.fw_threads()) if found is not None else 1


def pointer(tensor: Tensor) -> int:
    """The address of a contiguous CPU tensor's first element."""
    assert tensor.is_contiguous() and tensor.device.type == "cpu"
    return tensor.data_ptr()


def chosen(isa: str | None) -> bytes | None:
    """The `isa` argument of a native call, checked."""
    if isa is None:
        return None
    if isa not in ISAS:
        raise UsageError(f"isa={isa!r} is not one of {', '.join(ISAS)}")
    return isa.encode()


def check(status: int, what: str) -> None:
    """Raise what a native status means; `what` names the operation and its sizes."""
    if status == 0:
        return
    if status == 2:
        raise BadInput(f"{what}: the input is not finite")
    if status == 3:
        raise MemoryError(f"{what}: not enough memory for the native scratch buffers")
    if status == 5:
        raise UsageError(f"{what}: another thread is using this model; let calls take turns")
    if status == 4:
        raise UsageError(
            f"{what}: this machine cannot run that isa; it has {', '.join(available())}"
        )
    raise UsageError(f"{what}: sizes that the native library refuses (status {status})")
