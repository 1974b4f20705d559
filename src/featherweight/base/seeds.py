"""Seeds for random generators, computed from any values by a hash.

The CPU generator of torch uses only 32 bits of its seed. So a 64-bit seed that is put together from
several values by shifts would give equal random numbers for different values.
"""

from __future__ import annotations

import hashlib


def seed_of(*parts: object) -> int:
    """A 32-bit seed from the texts of `parts`, equal on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little")
