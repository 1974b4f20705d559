"""Model folders gone wrong in every way that a download, a disk or an enemy can think of, from a
seed.

`Hostile(folder)` holds a sound folder; `spoiled(random)` gives its files with one or two things
changed: bytes flipped, cut or inserted, a length that lies, a value of the JSON replaced by one
that no one expects, a key gone or doubled. Reading the result must end in a model or in a
`FeatherweightError`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featherweight.base.errors import FeatherweightError
from featherweight.inference.native.engine import NativeEngine
from featherweight.inference.native.reader import read_model

WEIGHTS, CONFIG = "model.safetensors", "config.json"
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        7,
        15,
        16,
        17,
        63,
        64,
        65,
        255,
        256,
        1 << 31,
        1 << 48,
        1 << 63,
        1 << 64,
        10**400,
    ),
    *(
        0.5,
        -0.0,
        1e-320,
        1e308,
        float("inf"),
        float("nan"),
        "",
        "0",
        "U8",
        "F16",
        "BF16",
        "F8_E4M3",
        "C128",
        "model",
    ),
    *(
        "Int(bits=4)",
        "Int(bits=9)",
        "Int(bits=4, group=0)",
        "Trellis(bits=5)",
        "Trellis(bits=2, L=17)",
        "__import__('os')",
    ),
    *([], [0], [0, 0], [0, -1], [1 << 40, 1 << 40], [[]], {}, {"a": 1}, "\ud800", "x" * 10_000),
)


class Hostile:
    """A sound folder, its files read once."""

    def __init__(self, folder: Path) -> None:
        self.config = (folder / CONFIG).read_bytes()
        self.weights = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(self.weights[:8], "little")
        self._header, self._body = (
            json.loads(self.weights[8 : 8 + length]),
            self.weights[8 + length :],
        )
        self._described = json.loads(self.config)

    def spoiled(self, r: random.Random) -> tuple[bytes, bytes]:
        """Another config.json and another model.safetensors."""
        config, weights = self.config, self.weights
        for _ in range(r.choice((1, 1, 2))):
            kind = r.randrange(6)
            if kind == 0:
                config = spoiled_bytes(r, config)
            elif kind in (1, 2):
                config = spoiled_json(r, self._described)
            elif kind == 3:
                weights = self._long(spoiled_json(r, self._header))
            elif kind == 4:
                weights = spoiled_bytes(r, weights, self._start() if r.random() < 0.7 else 0)
            else:
                weights = r.choice(LENGTHS)(r, weights)
        return config, weights

    def _start(self) -> int:
        return len(self.weights) - len(self._body)

    def _long(self, header: bytes) -> bytes:
        return len(header).to_bytes(8, "little") + header + self._body


def _lying_length(r: random.Random, data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    lie = r.choice(
        (0, 1, length - 1, length + 1, length + 8, len(data), len(data) - 8, 1 << 40, (1 << 64) - 1)
    )
    return (lie % (1 << 64)).to_bytes(8, "little") + data[8:]


LENGTHS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _lying_length,
    lambda r, data: data[: r.randrange(len(data) + 1)],
    lambda r, data: data + bytes(r.randrange(1, 100)),
    lambda r, data: data[: r.randrange(9)],
)


def spoiled_bytes(r: random.Random, data: bytes, start: int = 0) -> bytes:
    """Some bytes flipped, replaced, cut out or put in."""
    changed = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 30))):
        at = r.randrange(start, len(changed)) if len(changed) > start else 0
        match r.randrange(5):
            case 0:
                changed[at : at + 1] = (
                    bytes([changed[at] ^ 1 << r.randrange(8)]) if changed else b""
                )
            case 1:
                changed[at : at + 1] = r.choice(
                    (b"\x00", b"\xff", b"9", b"-", b'"', b"]", b"}", b"\\", b"e")
                )
            case 2:
                del changed[at : at + r.choice((1, 2, 50))]
            case 3:
                changed[at:at] = r.choice(
                    (b"\x00", b"0" * 400, b"[" * 5000, b'{"a":' * 3000, b"\xed\xa0\x80", b"NaN")
                )
            case _:
                changed[at : at + 8] = r.randbytes(8)
    return bytes(changed)


def spoiled_json(r: random.Random, value: Any) -> bytes:
    """`value` with something replaced, removed or doubled somewhere inside."""
    value = json.loads(json.dumps(value))
    inside, key = value, None
    while isinstance(inside, dict | list) and inside:
        key = r.choice(list(inside)) if isinstance(inside, dict) else r.randrange(len(inside))
        below = inside[key]
        if not isinstance(below, dict | list) or not below or r.random() < 0.3:
            break
        inside = below
    if key is not None:
        match r.randrange(4):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[r.choice([*inside, "other", ""])] = inside[key]
            case _:
                old = inside[key]
                whole = type(old) is int
                inside[key] = (
                    r.choice((old + 1, old - 1, old * 2, -old))
                    if whole and r.random() < 0.5
                    else r.choice(VALUES)
                )
    text = json.dumps(value)
    if r.random() < 0.05:
        text = text.replace('":', r.choice(('": 1, "model_type":', '":', '" :')), 1)
    return text.encode("utf-8", "surrogatepass")


def run(folder: Path, tokens: tuple[int, ...] = (3, 4)) -> None:
    """Reads the folder and runs some tokens."""
    engine = NativeEngine(read_model(folder), threads=1)
    try:
        session = engine.session(min(16, engine.context))
        engine.forward(session, [token % engine.vocab_size for token in tokens], "all")
    finally:
        engine.close()


def outcome(folder: Path) -> str:
    """`model`, or the name of the FeatherweightError that said no. Anything else escapes."""
    try:
        run(folder)
    except FeatherweightError as error:
        return type(error).__name__
    return "model"


def write(folder: Path, config: bytes, weights: bytes) -> None:
    """Puts both files in place."""
    (folder / CONFIG).write_bytes(config)
    (folder / WEIGHTS).write_bytes(weights)
