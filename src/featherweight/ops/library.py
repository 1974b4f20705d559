"""Loads the native library with ctypes at its first use. When it is missing, this is logged once.
This module imports no torch.

`FEATHERWEIGHT_NATIVE=0` disables it, `FEATHERWEIGHT_LIBRARY` names another file (for development),
`FEATHERWEIGHT_ISA` is one of scalar, avx2, avx512, and `FEATHERWEIGHT_THREADS` is the number of
threads. The library checks every size itself and returns a status, which `check` turns into an
exception. The caller must hold a reference to each tensor that it hands over as a pointer until the
call returns. ctypes releases the GIL during a call.
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

ABI = 7
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
        *(_POINTER, _LONG, _LONG, _POINTER, _INT, _INT),
        *(_FLOAT, _TEXT, _INT, _POINTER),
    ),
    "fw_trellis_decode": (_POINTER, _LONG, _LONG, _POINTER, _INT, _INT, _TEXT, _INT, _POINTER),
    "fw_trellis_dense": (
        *(_POINTER, _LONG, _LONG, _POINTER, _INT, _INT),
        *(_POINTER, _TEXT, _INT, _POINTER),
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
    """The native library, or None when the references must be used. The reason is logged once in a
    process.
    """
    return None if os.environ.get("FEATHERWEIGHT_NATIVE") == "0" else _load()


def path() -> Path:
    """The path from which the library is loaded; the file may be missing."""
    override = os.environ.get("FEATHERWEIGHT_LIBRARY")
    return (
        Path(override)
        if override
        else Path(__file__).parent.parent / "_native" / "libfeatherweight.so"
    )


@cache
def _load() -> ctypes.CDLL | None:
    try:
        native = ctypes.CDLL(str(path()))
        abi = native.fw_abi()
        if abi != ABI:
            raise OSError(f"{path()} has ABI {abi}, this package needs {ABI}")
    except (OSError, AttributeError) as error:
        _log.warning("native library not available (%s); using the slower PyTorch reference", error)
        return None
    for name, arguments in _SIGNATURES.items():
        function = getattr(native, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int32
    native.fw_isa.restype = native.fw_isa_message.restype = ctypes.c_char_p
    native.fw_model_free.argtypes = (_POINTER,)
    native.fw_model_free.restype = None
    native.fw_bandwidth.argtypes = (_POINTER, _LONG, _INT, _INT)
    native.fw_time_product.argtypes = (_POINTER, _LONG, _TEXT, _INT, _INT)
    native.fw_bandwidth.restype = native.fw_time_product.restype = ctypes.c_double
    native.fw_isa_available.argtypes = (ctypes.c_char_p,)
    message = native.fw_isa_message().decode()
    if message:
        _log.warning("%s", message)
    return native


def isa() -> str:
    """The instruction set in use: scalar, avx2 or avx512; "reference" without a library."""
    native = library()
    return native.fw_isa().decode() if native is not None else "reference"


def available() -> tuple[str, ...]:
    """Every instruction set that runs on this machine, slowest first; empty without a library."""
    native = library()
    if native is None:
        return ()
    return tuple(name for name in ISAS if native.fw_isa_available(name.encode()))


def threads() -> int:
    """The number of threads that a call uses by default; 1 without a library."""
    native = library()
    return int(native.fw_threads()) if native is not None else 1


def pointer(tensor: Tensor) -> int:
    """The address of the first element of a contiguous CPU tensor."""
    assert tensor.is_contiguous() and tensor.device.type == "cpu"
    return tensor.data_ptr()


def encode_isa(isa: str | None) -> bytes | None:
    """The `isa` argument of a native call; None lets the library choose.

    Raises UsageError for a name that is no instruction set of the library.
    """
    if isa is None:
        return None
    if isa not in ISAS:
        raise UsageError(f"isa={isa!r} is not one of {', '.join(ISAS)}")
    return isa.encode()


def check(status: int, operation: str) -> None:
    """Raise the exception that belongs to the status of a native call; 0 is success.

    operation: the operation and its sizes, for the message. Raises BadInput for input that is not
    finite, MemoryError when scratch buffers cannot be allocated, and UsageError for sizes that the
    library refuses, an instruction set that this machine lacks, or a model that another thread
    uses.
    """
    if status == 0:
        return
    if status == 2:
        raise BadInput(f"{operation}: the input is not finite")
    if status == 3:
        raise MemoryError(f"{operation}: not enough memory for the native scratch buffers")
    if status == 5:
        raise UsageError(f"{operation}: another thread is using this model; let calls take turns")
    if status == 4:
        raise UsageError(
            f"{operation}: this machine cannot run that isa; it has {', '.join(available())}"
        )
    raise UsageError(f"{operation}: sizes that the native library refuses (status {status})")
